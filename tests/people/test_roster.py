import csv
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from amplify.errors import AmplifyError
from amplify.people.roster import ADMIN, DAY, NotAllowedError, Roster

NOW = 1_000_000.0


@pytest.fixture
def roster(tmp_path):
    return Roster(tmp_path)


def test_everybody_invited_has_a_pseudonym_and_a_token_of_their_own(roster, tmp_path):
    members = roster.invite(["Ann", "Bob"], NOW) + roster.invite([""], NOW)
    assert [member.person for member in members] == ["person-01", "person-02", "person-03"]
    assert len({member.token for member in members}) == 3
    assert min(len(member.token) for member in members) >= 32
    for member in members:
        assert Roster(tmp_path).who(member.token, NOW) == member
        assert not member.is_admin
    assert Roster(tmp_path).members() == members


def test_names_stand_in_one_file_that_is_nowhere_read(roster, tmp_path):
    roster.invite(["Ann, Dr.", ""], NOW)
    roster.invite(["Zoë"], NOW)
    names = (tmp_path / "people" / "names.csv").read_text(encoding="utf-8").splitlines()
    assert [*csv.reader(names)] == [
        ["pseudonym", "name"], ["person-01", "Ann, Dr."], ["person-02", ""], ["person-03", "Zoë"],
    ]  # fmt: skip
    for path in (tmp_path / "people").iterdir():
        assert ("Ann" in path.read_text(encoding="utf-8")) == (path.name == "names.csv")


def test_simulated_people_have_no_names(roster, tmp_path):
    [member] = roster.invite([""], NOW, simulated=True)
    assert member.simulated
    assert not (tmp_path / "people" / "names.csv").exists()


def test_the_files_are_their_owners_alone(roster, tmp_path):
    roster.invite(["Ann"], NOW)
    roster.admin()
    folder = tmp_path / "people"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_link_works_until_it_expires(roster):
    [member] = roster.invite([""], NOW, days=2.0)
    assert roster.who(member.token, NOW + 2 * DAY - 1) == member
    with pytest.raises(NotAllowedError, match="expired; ask"):
        roster.who(member.token, NOW + 2 * DAY)


def test_a_link_that_was_revoked_no_longer_works_and_the_others_do(roster, tmp_path):
    one, two = roster.invite(["", ""], NOW)
    elsewhere = Roster(tmp_path)
    assert elsewhere.who(one.token, NOW) == one
    roster.revoke(one.person)
    for some in (roster, elsewhere):
        with pytest.raises(NotAllowedError, match="expired"):
            some.who(one.token, NOW)
        assert some.who(two.token, NOW) == two
    assert [member.person for member in roster.invite([""], NOW)] == ["person-03"]
    with pytest.raises(AmplifyError, match="no 'person-09', only person-01, person-02, person-03"):
        roster.revoke("person-09")


def test_files_that_were_open_to_others_no_longer_are(tmp_path):
    old = os.umask(0)
    try:
        Roster(tmp_path).invite(["Ann"], NOW)
        folder = tmp_path / "people"
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o666)
        (folder / "secret").write_text("s")
        Roster(tmp_path).invite(["Bob"], NOW)
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_once_the_admins_link_was_revoked_there_is_another(roster, tmp_path):
    before = roster.admin()
    [member] = roster.invite([""], NOW)
    roster.revoke(ADMIN)
    with pytest.raises(NotAllowedError):
        roster.who(before.token, NOW)
    after = roster.admin()
    assert after.token != before.token
    assert roster.admin() == after == Roster(tmp_path).admin()
    assert Roster(tmp_path).who(after.token, NOW) == after
    assert [one.person for one in roster.members()] == [member.person, ADMIN]


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "\udcff", "x" * 201, "a\u0085b"])
def test_a_name_that_cannot_be_kept_invites_nobody(roster, tmp_path, name):
    with pytest.raises(AmplifyError, match="a name") as error:
        roster.invite(["Ann", name], NOW)
    str(error.value).encode()
    assert not (tmp_path / "people").exists()


@pytest.mark.parametrize("days", [0.0, -1.0, 1e300, float("inf"), float("nan")])
def test_a_link_works_for_a_while_and_not_for_ever(roster, tmp_path, days):
    with pytest.raises(AmplifyError, match="at most 3650 days"):
        roster.invite([""], NOW, days)
    assert not (tmp_path / "people").exists()


@pytest.mark.parametrize("token", ["", "x", "ö", "../tokens.json"])
def test_nobodys_token_is_refused(roster, token):
    [member] = roster.invite([""], NOW)
    for wrong in (token, member.token[:-1], member.token + "x", member.token.swapcase()):
        with pytest.raises(NotAllowedError, match="not valid"):
            roster.who(wrong, NOW)


def test_there_is_one_admin_whose_link_never_expires(roster, tmp_path):
    admin = roster.admin()
    assert admin.is_admin
    assert admin.person == ADMIN
    assert roster.admin() == admin == Roster(tmp_path).admin()
    assert roster.who(admin.token, NOW * 1000) == admin
    assert roster.invite([""], NOW)[0].person == "person-01"


def test_inviting_at_once_gives_everybody_another_pseudonym(tmp_path):
    def invite(_):
        some = Roster(tmp_path)
        some.admin()
        return some.invite(["", ""], NOW)

    with ThreadPoolExecutor(8) as threads:
        invited = [member for some in threads.map(invite, range(8)) for member in some]
    assert len({member.person for member in invited}) == 16
    assert {*invited} | {Roster(tmp_path).admin()} == {*Roster(tmp_path).members()}


@pytest.mark.parametrize("damage", ["{", '[{"person": "a"}]', "[3]", '{"person": "a"}'])
def test_a_damaged_file_is_refused_and_left_alone(roster, tmp_path, damage):
    roster.invite([""], NOW)
    file = tmp_path / "people" / "tokens.json"
    file.write_text(damage)
    for act in (roster.members, roster.admin, lambda: Roster(tmp_path).invite([""], NOW)):
        with pytest.raises(AmplifyError, match=r"tokens\.json: damaged"):
            act()
    assert file.read_text() == damage
