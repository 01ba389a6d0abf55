import html.parser
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplify.errors import AmplifyError
from amplify.people.trees import Tree, TreeFilter, Trees, folded, read_trees, write_trees

SCRIPT = "<script>alert('x')</script>"


def node(question, answer, *steps, by="assistant", right=True, **more):
    return {
        "question": question,
        "answer": answer,
        "by": by,
        "right": right,
        "steps": list(steps),
        **more,
    }


def leading(row, *steps, **more):
    return {"row": row, "column": 0, **node("Who leads it?", "Ann", *steps, by="overseer", **more)}


def write_round(folder, number, parent, *trees):
    path = folder / f"{number:03d}"
    path.mkdir()
    facts = {"parent": None if parent is None else {"round": parent, "digest": f"c{parent}"}}
    (path / "record.json").write_text(json.dumps({"round": number, **facts}))
    if trees:
        lines = "".join(json.dumps(tree) + "\n" for tree in trees)
        (path / "interactions.jsonl").write_text(lines)


@pytest.fixture
def experiment(tmp_path):
    looked_up = node("search: X", "Bob it was", by="environment")
    write_round(tmp_path, 0, None)
    write_round(
        tmp_path,
        1,
        0,
        leading(0, node("Who founded X?", "Bob", looked_up)),
        leading(1, node("Who founded X?", "Cid", right=False), right=False, **{"class": "2 hops"}),
    )
    write_round(
        tmp_path,
        2,
        1,
        {
            **leading(4, node("who  founded x?", "BOB", event=17), **{"class": "1 hop"}),
            "by": "human",
            "item": "2-4-0",
            "person": "person-01",
            "event": 18,
        },
        leading(5, node(SCRIPT, SCRIPT)),
    )
    return tmp_path


def test_a_row_leads_to_its_tree_and_an_answer_to_all_rows_that_rest_on_it(experiment):
    trees = read_trees(experiment)
    assert [tree.place for tree in trees.all] == ["1-0-0", "1-1-0", "2-4-0", "2-5-0"]
    assert trees.at(2, 4, 0).person == "person-01"
    assert trees.at(2, 4, 1) is None
    assert [t.place for t in trees.resting_on("Who founded X?", "Bob")] == ["1-0-0", "2-4-0"]
    assert [t.place for t in trees.resting_on("Who founded X?", "Bob", "c1")] == ["2-4-0"]
    assert [t.place for t in trees.resting_on("search: x", "bob it was")] == ["1-0-0"]
    assert trees.resting_on("Who founded X?", "Dan") == []
    for event in (17, 18):
        assert [tree.place for tree in trees.of_event(event)] == ["2-4-0"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (TreeFilter(), ["1-0-0", "1-1-0", "2-4-0", "2-5-0"]),
        (TreeFilter(text="FOUNDED bob"), ["1-0-0", "2-4-0"]),
        (TreeFilter(text="it was"), ["1-0-0"]),
        (TreeFilter(right=False), ["1-1-0"]),
        (TreeFilter(right=True, round=1), ["1-0-0"]),
        (TreeFilter(label="1 hop"), ["2-4-0"]),
        (TreeFilter(person="person-01"), ["2-4-0"]),
        (TreeFilter(by="overseer"), ["1-0-0", "1-1-0", "2-5-0"]),
        (TreeFilter(model=1), ["2-4-0", "2-5-0"]),
    ],
)
def test_each_filter_lets_through_what_it_says(experiment, wanted, found):
    assert [tree.place for tree in read_trees(experiment).find(wanted)] == found


def test_what_can_be_chosen_to_filter_by_is_what_there_is(experiment):
    trees = read_trees(experiment)
    assert trees.labels() == ["2 hops", "1 hop"]
    assert trees.people() == ["person-01"]
    assert trees.models() == [0, 1]


def test_the_class_of_a_persons_tree_may_come_from_its_item(tmp_path):
    write_round(tmp_path, 1, 0, {**leading(0), "item": "1-0-0", "person": "person-01"})
    [tree] = read_trees(tmp_path, {"1-0-0": "3 hops"}).all
    assert tree.label == "3 hops"


NODES = st.recursive(
    st.builds(node, st.sampled_from("qrs"), st.sampled_from("ab")),
    lambda below: st.builds(node, st.sampled_from("qrs"), st.sampled_from("ab"), below, below),
    max_leaves=6,
)


@given(st.lists(NODES, max_size=6), st.sampled_from("qrs"), st.sampled_from("ab"))
def test_an_answer_is_found_wherever_it_is_in_a_tree(roots, question, answer):
    def has(root):
        mine = (root["question"], root["answer"]) == (question, answer)
        return mine or any(map(has, root["steps"]))

    trees = Trees([Tree(1, n, 0, root, None, 0, "c0", "") for n, root in enumerate(roots)])
    found = [tree.row for tree in trees.resting_on(question, answer)]
    assert found == [n for n, root in enumerate(roots) if has(root)]


def test_a_file_that_was_written_anew_is_read_anew(experiment):
    assert len(read_trees(experiment)) == 4
    path = experiment / "002" / "interactions.jsonl"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(leading(7)) + "\n")
    new.rename(path)
    assert [tree.place for tree in read_trees(experiment).all][2:] == ["2-7-0"]


def test_a_damaged_file_is_named(experiment):
    (experiment / "001" / "interactions.jsonl").write_text('{"row": 0}\n')
    with pytest.raises(AmplifyError, match=r"001/interactions\.jsonl: damaged"):
        read_trees(experiment)


class Balanced(html.parser.HTMLParser):
    """Fails on a tag that is closed out of turn; keeps what a browser would fetch or run."""

    def __init__(self):
        super().__init__()
        self.open, self.scripts, self.fetched = [], 0, []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "input", "link", "img"):
            self.open.append(tag)
        self.scripts += tag == "script"
        self.fetched += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_round_is_written_as_one_file_that_needs_nothing_else(experiment):
    path = write_trees(experiment, 2)
    assert path == experiment / "002" / "trees.html"
    text = path.read_text(encoding="utf-8")
    page = Balanced()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert page.scripts == 1  # ours, and not what somebody answered
    assert "&lt;script&gt;" in text
    assert re.findall(r'id="(row-[\d-]+)"', text) == ["row-4-0", "row-5-0"]
    assert not list(path.parent.glob(".*.tmp"))


def test_a_round_without_trees_says_so_and_one_that_is_not_there_is_an_error(experiment):
    assert "kept no trees" in write_trees(experiment, 0).read_text(encoding="utf-8")
    with pytest.raises(AmplifyError, match="there is no round 9"):
        write_trees(experiment, 9)


def test_a_folded_tree_is_escaped_and_its_answers_lead_to_where_else_they_are():
    text = str(folded(node(SCRIPT, "a&b", node("q?", '"x"')), ask="/admin/answer"))
    page = Balanced()
    page.feed(text)
    assert page.open == []
    assert page.scripts == 0
    assert "/admin/answer?question=q%3F&answer=%22x%22" in page.fetched


def test_trees_with_text_of_any_kind_are_read_and_written(tmp_path):
    """Halves of characters, as some models write them, and line breaks that are none of JSON's."""
    write_round(tmp_path, 0, None)
    odd = "one\N{LINE SEPARATOR}two\N{NEXT LINE}"
    write_round(tmp_path, 1, 0, leading(0, node("\ud800 Who?", odd)))
    path = tmp_path / "001" / "interactions.jsonl"
    path.write_text(path.read_text().replace("\\u2028", "\N{LINE SEPARATOR}"), encoding="utf-8")
    [tree] = read_trees(tmp_path).all
    [_, step] = tree.nodes()
    assert step["question"] == "\N{REPLACEMENT CHARACTER} Who?"
    assert step["answer"] == odd
    assert "\N{REPLACEMENT CHARACTER} Who?" in write_trees(tmp_path, 1).read_text(encoding="utf-8")
