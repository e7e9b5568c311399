from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from unlearun import shipped
from unlearun.errors import UnlearunError
from unlearun.shipped import ASSETS, configs_root, copy_configs, find_asset, find_config

SHIPPED = sorted(str(file.relative_to(configs_root()).with_suffix("")) for file in configs_root().rglob("*.yaml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder that is no checkout, as a user of the wheel has it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- --config NAME ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_is_found_by_each_of_its_names(name):
    for written in (name, f"{name}.yaml", f"configs/{name}", f"configs/{name}.yaml"):
        assert find_config(written) == configs_root() / f"{name}.yaml"


@pytest.mark.parametrize("name", ["rmu.yaml", "configs/rmu.yaml"])
def test_a_local_file_stands_before_a_shipped_one(elsewhere, name):
    local = elsewhere / name
    local.parent.mkdir(exist_ok=True)
    local.write_text("{}")
    assert find_config(name).resolve() == local
    assert find_config(str(local)) == local


def test_a_misspelt_config_suggests_the_right_one_and_lists_all():
    with pytest.raises(UnlearunError) as caught:
        find_config("rmuu.yaml")
    assert "config 'rmuu.yaml' is neither a file here nor a shipped config. Did you mean 'rmu'?" in str(caught.value)
    assert str(caught.value).endswith(", ".join(SHIPPED))


@pytest.mark.parametrize("name", ["", ".", "/", "..", "configs", "configs/", "../pyproject.toml", "/nowhere/rmu.yaml"])
def test_what_is_no_config_is_our_error(name):
    with pytest.raises(UnlearunError, match="is neither a file here nor a shipped config"):
        find_config(name)


def test_configs_lie_inside_an_installed_package_and_beside_it_in_a_checkout(elsewhere, monkeypatch):
    package = elsewhere / "site/unlearun"
    package.mkdir(parents=True)
    monkeypatch.setattr(shipped, "PACKAGE", package)
    assert configs_root() == elsewhere / "site/configs"
    (package / "configs").mkdir()
    assert configs_root() == package / "configs"


# ---- assets -----------------------------------------------------------------------------------------------------


def test_assets_are_found_by_their_short_name():
    assert find_asset("pocket/forget.json") == ASSETS / "pocket/forget.json"
    assert find_asset("pocket/target") == ASSETS / "pocket/target"


@pytest.mark.parametrize("name", ["", "pocket/nothing.json", "../errors.py", str(ASSETS / "pocket/forget.json")])
def test_nothing_but_assets_is_found(name):
    assert find_asset(name) is None


# ---- unlearun configs DIR ---------------------------------------------------------------------------------------


def test_copies_are_whole_and_named(elsewhere):
    target = elsewhere / "new/configs"
    copies = copy_configs(str(target))
    assert sorted(str(copy.relative_to(target).with_suffix("")) for copy in copies) == SHIPPED
    for copy in copies:
        assert copy.read_bytes() == (configs_root() / copy.relative_to(target)).read_bytes()


def test_what_stands_there_is_never_overwritten_and_nothing_is_half_copied(elsewhere):
    mine = elsewhere / "rmu.yaml"
    mine.write_text("mine")
    with pytest.raises(UnlearunError, match=r"rmu\.yaml exists already"):
        copy_configs(elsewhere)
    assert mine.read_text() == "mine"
    assert list(elsewhere.iterdir()) == [mine]


def test_other_files_in_the_folder_are_no_hindrance(elsewhere):
    (elsewhere / "notes.txt").write_text("mine")
    assert (elsewhere / "rmu.yaml") in copy_configs(elsewhere)


def test_a_folder_that_is_a_file_is_our_error(elsewhere):
    (elsewhere / "file").write_text("mine")
    with pytest.raises(UnlearunError, match="cannot write the configs to"):
        copy_configs(elsewhere / "file")


def test_every_model_of_the_hub_is_pinned_to_a_commit():
    """A name alone is another model tomorrow."""
    seen = 0
    for file in (configs_root() / "models").rglob("*.yaml"):
        settings = yaml.safe_load(file.read_text(encoding="utf-8")).get("model", {}).get("init_args", {})
        for name in (settings.get("model"), settings.get("tokenizer")):
            if name and not name.startswith("package:"):
                assert re.fullmatch(r"[\w-]+/[\w.-]+@[0-9a-f]{40}", name), file
                seen += 1
    assert seen > 20


def test_readme_leads_to_headings_that_it_has():
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    places = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]*)\)", text)
    assert links
    assert set(links) <= places
