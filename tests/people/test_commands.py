"""The commands about people: what they refuse, in one line and with nothing written."""

import socket

import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.people import serving
from amplify.people.log import EVENTS, Log
from amplify.people.roster import Roster
from amplify.people.serving import Where
from tests.people.test_collection import people_experiment
from tests.tiny import tiny_experiment


@pytest.fixture
def folder(tmp_path):
    return people_experiment(tmp_path / "people")


def refused(capsys, folder, *arguments: str) -> str:
    """The one line in which a command is refused, which wrote nothing."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("amplify: ")
    assert captured.err.count("\n") == 1, captured.err
    assert sorted(folder.rglob("*")) == before
    return captured.err


@pytest.mark.parametrize("command", ["people", "serve", "events"])
def test_without_people_there_is_nothing_to_show(tmp_path, capsys, command):
    folder = tiny_experiment(tmp_path / "tiny")
    out = [folder / "out.jsonl"] if command == "events" else []
    line = refused(capsys, folder, command, folder, *out)
    assert "no people oversee this experiment: its overseer.kind is 'simulated'" in line
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/experiment.toml").write_text('base = "../tiny"\n')
    assert "no people oversee" in refused(capsys, folder, command, tmp_path / "mine", *out)
    for nowhere in (tmp_path / "nowhere", tmp_path):
        assert "an experiment is a folder with an experiment.toml" in refused(
            capsys, tmp_path, command, nowhere, *out
        )


NO_EXPERIMENTS = ["overseer = 3", 'base = "."', "[", 'base = "a\\u0000b"', "\ufeff"]


@pytest.mark.parametrize("toml", NO_EXPERIMENTS)
@pytest.mark.parametrize("command", ["people", "serve"])
def test_a_file_that_is_no_experiment_is_refused(tmp_path, capsys, command, toml):
    (tmp_path / "experiment.toml").write_text(toml, encoding="utf-8")
    refused(capsys, tmp_path, command, tmp_path)


def test_an_experiment_whose_base_has_people_has_people(folder, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/experiment.toml").write_text('base = "../people"\n[overseer]\nitems = 3\n')
    main(["people", str(tmp_path / "mine"), "--invite", "1"])
    assert "person-01: http://" in capsys.readouterr().out


def test_what_people_said_before_somebody_else_oversaw_is_still_shown(tmp_path, capsys):
    folder = tiny_experiment(tmp_path / "tiny")
    log = Log(folder / EVENTS)
    log.append({"kind": "opened", "round": 1, "body": {"lease": 9}})
    log.close()
    main(["events", str(folder), str(tmp_path / "events.jsonl")])
    assert "1 events" in capsys.readouterr().out


@pytest.mark.parametrize("days", ["inf", "-inf", "nan", "0", "-3", "1e300", "3651"])
def test_links_work_for_so_many_days_and_no_other_number(folder, capsys, days):
    line = refused(capsys, folder, "people", folder, "--invite", "1", "--days", days)
    assert "--days: must be more than 0, at most 3650" in line


@pytest.mark.parametrize("invite", ["-1", "1001", "10" * 30])
def test_so_many_people_are_not_invited_at_once(folder, capsys, invite):
    assert "--invite: must be 0 to 1000" in refused(
        capsys, folder, "people", folder, "--invite", invite
    )


@pytest.mark.parametrize("name", ["two\nlines", "\udcff", "x" * 1000])
def test_a_name_that_cannot_be_kept_is_refused(folder, capsys, name):
    assert "a name" in refused(capsys, folder, "people", folder, "--name", name)


def test_the_admins_link_is_revoked_and_there_is_another_at_once(folder, capsys):
    before = Roster(folder).admin().token
    main(["people", str(folder), "--revoke", "admin"])
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if line.startswith("admin: ")]
    assert before not in said
    assert line.endswith(Roster(folder).admin().token)


@pytest.mark.parametrize("host", ["", " ", "\t"])
def test_an_empty_host_is_refused(folder, capsys, monkeypatch, host):
    assert "--host: must be an address of this computer" in refused(
        capsys, folder, "serve", folder, "--host", host
    )
    monkeypatch.setenv("AMPLIFY_HOST", host)
    with pytest.raises(AmplifyError, match="AMPLIFY_HOST: must be an address"):
        Where.from_environment()


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 300, "..", "1.2.3.4.5", "::g"])
def test_a_host_that_is_none_is_one_clear_line(folder, capsys, host):
    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(folder), "--host", host, "--port", "0"])
    line = capsys.readouterr().err
    assert "cannot be listened on" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "::", "::0", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0"])
def test_a_host_that_is_every_network_is_warned_of(host):
    assert serving.listens_everywhere(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1", "nowhere.invalid"])
def test_other_hosts_are_not_warned_of(host):
    assert not serving.listens_everywhere(host)


def test_pages_for_every_network_are_there_with_a_warning(folder, capfd):
    with serving.serving(folder, Where("0.0.0.0", 0)) as served:
        assert served.address.startswith("http://127.0.0.1:")
    assert (
        "warning: on 0.0.0.0 the pages can be reached from every network" in capfd.readouterr().err
    )


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_address_of_ipv6_stands_in_brackets():
    assert Where("::1", 8765).address == "http://[::1]:8765"
    assert Where("::", 8765).address == "http://[::1]:8765"
