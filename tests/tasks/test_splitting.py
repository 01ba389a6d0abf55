"""Texts in pieces that together say all of it, and words to find them by."""

from hypothesis import given
from hypothesis import strategies as st

from amplify.tasks.text.collection import Collection, Document
from amplify.tasks.text.documents import Documents
from amplify.tasks.text.splitting import sentences, split_passages, words_of
from amplify.tasks.text.text_tokenizer import train_tokenizer
from tests.documents import written

JAPANESE = (
    "東京は日本の首都である。富士山は日本で一番高い山です。"
    "「猫は好きか。」京都には古い寺が多い\uff01"
)
TOKENIZER = train_tokenizer(["a text of some kind", JAPANESE], 500)


@given(
    st.lists(st.one_of(st.text(st.characters(codec="utf-8")), st.sampled_from([". ", "。", "! "]))),
    st.integers(4, 40),
)
def test_nothing_is_lost_and_every_piece_fits(parts, length):
    text = "".join(parts)
    pieces = split_passages(text, TOKENIZER, length)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(TOKENIZER.encode(piece)) <= length for piece in pieces)
    assert all(piece == piece.strip() != "" for piece in pieces)


def test_a_long_address_is_cut_into_pieces():
    address = "https://example.com/" + "abc123" * 70
    pieces = split_passages(f"See {address} for more.", TOKENIZER, 60)
    assert address in "".join(pieces)
    assert len(pieces) > 3


def test_japanese_is_cut_between_sentences_where_they_fit():
    assert sentences(JAPANESE) == [
        "東京は日本の首都である。",
        "富士山は日本で一番高い山です。",
        "「猫は好きか。」",
        "京都には古い寺が多い\uff01",
    ]
    longest = max(len(TOKENIZER.encode(one)) for one in sentences(JAPANESE))
    for piece in split_passages(JAPANESE, TOKENIZER, longest):
        assert piece[-1] in "。\uff01」"


def test_words_of_scripts_without_spaces_are_pairs():
    assert words_of("The cat sat.") == ["The", "cat", "sat"]
    assert words_of("東京都 has 猫") == ["has", "東京", "京都", "猫"]


def test_a_search_finds_what_is_written_without_spaces():
    texts = {
        "東京": "東京は日本の首都である。",
        "富士山": "富士山は東京から見える。",
        "猫": "猫は寝る。",
        "กรุงเทพ": "กรุงเทพเป็นเมืองหลวงของไทย",
    }
    collection = Collection([Document(*pair) for pair in texts.items()])
    assert collection.search(["日本の首都はどこ", "猫", "เมืองหลวง"], 1) == [(0,), (2,), (3,)]
    assert collection.titles_in(1) == ("東京",)
    assert collection.search_with_follow_ups(["富士山が見える"], 1, 2) == [(1, 0)]
    assert collection.sentence(0, "首都") == "東京は日本の首都である。"


def test_documents_without_spaces_are_read_whole_and_found(tmp_path):
    rows = [{"title": f"文書{n}", "text": JAPANESE * 30 + f"番号は{n}番である。"} for n in range(3)]
    asked = [{"question": "番号2番の文書は\uff1f", "answer": "文書2", "documents": ["文書2"]}]
    task = Documents(
        documents=str(written(tmp_path / "d.jsonl", rows)),
        questions=str(written(tmp_path / "q.jsonl", asked)),
    )
    from amplify.tasks.text.retrieval import library_of

    library = library_of(task)
    texts = library.tokenizer.decode_batch(library.passages)
    documents = library.collection.documents
    for row in rows:
        there = [
            text
            for document, text in zip(documents, texts, strict=True)
            if document.title == row["title"]
        ]
        assert "".join("".join(there).split()) == f"{row['title']}:{row['text']}"
    [[found]] = library.collection.search(["番号は2番"], 1)
    assert documents[found].title == "文書2"
