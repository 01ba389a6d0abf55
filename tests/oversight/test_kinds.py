"""The kinds of oversight that an experiment file may name, beside amplification."""

import json

import pytest

from amplify.cli.commands import main
from amplify.errors import AmplifyError
from amplify.reading.experiment_file import read_experiment
from amplify.store import Store
from tests.servers import completion, fake_server
from tests.test_identity import begun
from tests.tiny import TOML, tiny_experiment

LEARNED = TOML.replace('kind = "simulated"', 'kind = "learned"')
BY_PEOPLE = TOML.replace('kind = "simulated"', 'kind = "human"\npeople = "real"\nothers = "nobody"')
BY_MODEL = TOML.replace(
    'kind = "simulated"', 'kind = "language-model"\nprompt = "prompt.txt"\nmodel = "m"\nendpoint = '
)


def overseen(kind: str) -> str:
    return f'\n[oversight]\nkind = "{kind}"\n'


def reading(folder, toml: str):
    return read_experiment(tiny_experiment(folder, toml) / "experiment.toml")


def older(toml: str, value: str = "truth") -> str:
    return toml.replace("[questions]\n", f'[questions]\nsub_answers = "{value}"\n')


@pytest.mark.parametrize(("value", "kind"), [("truth", "truth"), ("assistant", "amplification")])
def test_the_older_key_for_true_sub_answers_is_read_as_a_kind(tmp_path, value, kind):
    before = reading(tmp_path / "before", older(TOML, value))
    now = reading(tmp_path / "now", TOML + overseen(kind))
    assert before == now
    assert before.values == now.values
    assert before.digest == now.digest
    assert before.sub_answers == value


@pytest.mark.parametrize("recorded", ["amplification", None])
def test_rounds_of_the_older_key_go_on(tmp_path, recorded):
    """Records of earlier versions have the key, and no kind of oversight or the only one."""
    folder = tiny_experiment(tmp_path / "tiny", TOML + overseen("truth"))
    begun(folder)
    path = folder / "001/record.json"
    record = json.loads(path.read_text())
    record["experiment"] |= {"questions.sub_answers": "truth", "oversight.kind": recorded}
    if recorded is None:
        del record["experiment"]["oversight.kind"]
    path.write_text(json.dumps(record))
    Store(folder).check_current()
    record["experiment"]["questions.sub_answers"] = "assistant"
    path.write_text(json.dumps(record))
    with pytest.raises(AmplifyError, match=r"oversight.kind \('amplification' -> 'truth'\)"):
        Store(folder)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (older(TOML, "truht"), "questions.sub_answers must be assistant or truth, got 'truht'"),
        (older(TOML) + overseen("direct"), "but oversight.kind is 'direct': remove one"),
        (TOML + overseen("direct"), "needs people or a language model as overseer"),
        (
            LEARNED + overseen("direct"),
            'oversight.kind = "direct" needs people or a language model',
        ),
        (
            BY_PEOPLE.replace('others = "nobody"', "") + overseen("direct"),
            'overseer.others must be "nobody" where oversight.kind = "direct"',
        ),
        (
            BY_PEOPLE.replace("real", "simulated") + overseen("direct"),
            'overseer.people must be "real" where oversight.kind = "direct"',
        ),
        (
            BY_PEOPLE.replace("others", "asks = 2\nothers") + overseen("direct"),
            "overseer.asks must be 0 if oversight.kind = 'direct', got 2",
        ),
        (TOML + overseen("directly"), "got 'directly'; did you mean direct?"),
    ],
)
def test_what_does_not_fit_together_is_one_clear_line(tmp_path, toml, said):
    with pytest.raises(AmplifyError) as error:
        reading(tmp_path / "tiny", toml)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_true_sub_answers_need_a_task_that_knows_the_truth(tmp_path):
    own = TOML.replace('"wildcard"', '"mine.py:Mine"') + overseen("truth")
    folder = tiny_experiment(tmp_path / "tiny", own)
    (folder / "mine.py").write_text(
        "import dataclasses\nfrom amplify.tasks.algorithmic.wildcard import Wildcard\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(Wildcard):\n"
        "    truth = None\n    is_right = None\n"
    )
    with pytest.raises(AmplifyError, match="truth and is_right of Mine are None"):
        read_experiment(folder / "experiment.toml")


def test_people_who_oversee_directly_have_no_questions_to_ask(tmp_path):
    experiment = reading(tmp_path / "tiny", BY_PEOPLE + overseen("direct"))
    assert experiment.overseer.config.asks == 0
    assert experiment.values["overseer.asks"] == 0


def test_a_language_model_that_oversees_directly_is_prompted_once_and_asks_nobody(tmp_path):
    with fake_server() as server:
        server.respond = lambda body, number: completion("Conclude: 0")
        toml = BY_MODEL.replace("endpoint = ", f'endpoint = "{server.address}"\n')
        folder = tiny_experiment(tmp_path / "tiny", toml + overseen("direct"))
        (folder / "prompt.txt").write_text("Answer in one line.")
        main(["round", str(folder), "--n", "1"])
        texts = {body["messages"][-1]["content"] for body in server.bodies}
    ledger = Store(folder).round(1).record["ledger"]
    assert ledger["assistant_answers"] == 0
    assert ledger["overseer_answers"] == 96 * 4
    assert all("A:" not in text for text in texts)
