"""How documents are cut, and found by word."""

from __future__ import annotations

from pathlib import Path

from app.memory import passages
from app.memory.documents import DocumentIndex, fuse
from app.memory.passages import MAX_PASSAGE_CHARS, cut
from app.memory.words import WordIndex, terms

_GUIDE = """---
layout: page
---
# The guide

Intro.

## Install `it`

Run this:

```sh
# not a heading
make up
```

## Install it

Again.

### [Deeper](x.md) & more!
Text.
"""


def test_a_passage_is_a_section_with_a_link_that_works() -> None:
    """An answer names its source; the anchor must be the one that the site has."""
    found = cut("guide.md", _GUIDE)
    assert [(passage.uri, passage.title, passage.line) for passage in found] == [
        ("guide.md#the-guide", "The guide", 6),
        ("guide.md#install-it", "The guide › Install it", 10),
        ("guide.md#install-it-1", "The guide › Install it", 19),
        ("guide.md#deeper--more", "The guide › Deeper & more!", 22),
    ]
    assert "# not a heading" in found[1].text


def test_a_long_section_is_cut_between_paragraphs_and_loses_nothing() -> None:
    """What is beyond an embedding model's limit would be there and never be found."""
    paragraphs = [f"Paragraph {number} " + "word " * 60 for number in range(20)]
    paragraphs.append(" ".join(f"x{number}" for number in range(700)))
    found = cut("a.md", "# A\n\n" + "\n\n".join(paragraphs))
    assert all(len(passage.text) <= MAX_PASSAGE_CHARS + 40 for passage in found)
    assert sum(passage.text.count("word") for passage in found) == 20 * 60
    assert sum(passage.text.count("x") for passage in found) == 700
    assert len({passage.id for passage in found}) == len(found)
    assert found[1].line > found[0].line


def test_ids_follow_from_content() -> None:
    """Two workers index the same passage once; an edit elsewhere in the file changes nothing for the rest."""
    before = {passage.id for passage in cut("guide.md", _GUIDE)}
    after = {passage.id for passage in cut("guide.md", _GUIDE.replace("Again.", "Once more."))}
    assert len(before & after) == len(before) - 1


def test_only_text_of_the_folder_itself_is_read(tmp_path: Path) -> None:
    """A link out of the folder would publish what it points to."""
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.md").write_text("# Secret")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / ".hidden.md").write_text("# Hidden\nx")
    (folder / "code.py").write_text("x = 1")
    (folder / "sub" / "a.md").write_bytes(b"# A\nbad \xff byte")
    assert [passage.uri for passage in passages.read(folder)] == ["sub/a.md#a"]
    assert passages.read(tmp_path / "none") == []


def test_words_are_matched_without_case_endings_and_common_ones() -> None:
    """`What happens to killed workers` must find `a worker is killed`; settings are found by name and by part."""
    assert terms("What happens to the Killed workers?") == ["happen", "kill", "worker"]
    assert terms("set WORKER_SLOTS") == ["set", "worker", "slot", "worker_slots"]


def test_rare_words_weigh_more_than_frequent_ones() -> None:
    """The point of BM25: the word that only one text has decides."""
    index = WordIndex(["redis queue redis queue", "redis lease", "redis", "redis queue fence"])
    assert index.search("redis fence", 2)[0][0] == 3
    assert index.search("nothing alike", 5) == []
    assert WordIndex([]).search("redis", 5) == []


def test_fusion_prefers_what_both_rankings_found() -> None:
    """A passage that is second by word and second by meaning beats one that is first by one of them."""
    assert [id_ for id_, _ in fuse(["a", "b"], ["c", "b"])] == ["b", "a", "c"]


async def test_without_qdrant_words_are_used_and_it_is_said(tmp_path: Path) -> None:
    """A laptop without a vector store still answers; whoever reads the answer can see why it is weaker."""
    (tmp_path / "guide.md").write_text(_GUIDE)
    index = DocumentIndex(tmp_path, corpus="test")
    found = await index.search("how do I install", 2)
    assert found.degraded == "QDRANT_URL is not set"
    assert found.hits[0].passage.title == "The guide › Install it"
