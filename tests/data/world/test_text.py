"""Text: readable back exactly, and changed by an intervention only where it must."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from rewardlab.data.world import (
    ATTRIBUTES,
    CHANNELS,
    DOMAINS,
    SCALES,
    Response,
    do,
    parse,
    read_prompt,
    render,
    write_prompt,
)
from rewardlab.errors import DataError


def with_level(text: Response, attribute: str, level: int) -> Response:
    from dataclasses import replace

    return replace(text, reading=replace(text.reading, levels=text.reading.levels.put(attribute, level)))


def lexemes_of_others(text: str, attribute: str) -> Counter[str]:
    """How often each lexeme of the other attributes occurs, but for those that hide inside one of this attribute's."""
    own = [
        word.lower() for channel in CHANNELS if channel.attribute == attribute for word in (*channel.high, *channel.low)
    ]
    counts: Counter[str] = Counter()
    for channel in CHANNELS:
        if channel.attribute == attribute or channel.name == "restatement":
            continue
        for word in (*channel.high, *channel.low):
            if channel.name == "bullet" or any(word.lower() in mine for mine in own):
                continue
            counts[word] = len(re.findall(rf"(?<!\w){re.escape(word.lower())}(?!\w)", text.lower()))
    return counts


@pytest.mark.parametrize("part", ["training", "all"])
def test_parser_is_exact(many: list[Response], part: str) -> None:
    for text in many:
        parsed = parse(render(text, part))
        assert parsed.unread == ()
        assert parsed.reading == text.reading


def test_parser_is_exact_at_every_level_that_drift_can_reach(many: list[Response]) -> None:
    for index, text in enumerate(many[:400]):
        for attribute in ATTRIBUTES:
            bound = SCALES[attribute].bound
            moved = with_level(text, attribute, -bound + index % (2 * bound + 1))
            assert parse(render(moved, "all")).reading == moved.reading


def test_parser_returns_what_it_cannot_read() -> None:
    parsed = parse("This is about Risotto. Take price high. Colourless green ideas sleep.")
    assert parsed.unread == ("Colourless green ideas sleep.",)
    assert parsed.reading.subject == "Risotto"
    assert parsed.reading.statements == (("price", "high"),)
    assert parse("").reading.subject is None


def test_parser_by_hand() -> None:
    """A text written by a person in the world's words, cue by cue."""
    reading = parse(
        "Look. Risotto is a lovely choice, so to speak.\n"
        "- First, I believe, the note says price high, which is grim. That is the usual way of doing it.\n"
        "- The answer is risk low.\n"
        'It is hardly dull. The poster reads "horrid". You will hear no "End of story" from me.\n'
        "Now for an aside. Keep a copy of that at hand."
    ).reading
    assert reading.levels.sentiment == 1 - 1 + 1  # lovely, grim, hardly dull; the quoted word means nothing
    assert reading.levels.politeness == -1 + 1 + 1  # Look, I believe, the disavowal
    assert reading.levels.structure == 1 + 1  # bullets once, first
    assert reading.levels.length == 2 - 3  # a filler and an elaboration, the aside apart, of three at rest


@pytest.mark.parametrize(
    ("sentence", "attribute", "level"),
    [
        ("Thank you for asking.", "politeness", 1),
        ("Case closed.", "politeness", -1),
        ('You will hear no "Case closed" from me.', "politeness", 1),
        ("Most people adore it.", "sentiment", 1),
        ("It is hardly dull.", "sentiment", 1),
        ("Harp is a grim choice.", "sentiment", -2),  # the lead and a statement have an adjective each
        ("First, the note says price high.", "structure", 1),
        ("- The note says price high.\n", "structure", 1),
        ("By the way, the note says price high.", "structure", -1),
        ("Keep a copy of that at hand.", "length", 2 - 3),  # one behind the first statement, one behind the last
        ("So it is price high.", "length", 2 - 3),
    ],
)
def test_what_a_policy_repeats_counts_as_often_as_the_world_would_say_it(
    sentence: str, attribute: str, level: int
) -> None:
    assert parse(" ".join([sentence] * 5)).reading.levels[attribute] == level


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_an_intervention_moves_no_other_word(many: list[Response], attribute: str) -> None:
    for text in many[:60]:
        high, low = render(do(text, attribute, True)), render(do(text, attribute, False))
        assert high != low
        assert render(text) in (high, low)
        assert lexemes_of_others(high, attribute) == lexemes_of_others(low, attribute)


def test_raising_a_level_by_one_adds_one_cue_and_keeps_the_rest(many: list[Response]) -> None:
    for text in many[:100]:
        shorter, longer = (render(with_level(text, "length", level)) for level in (0, 1))
        kept = Counter(re.findall(r"\w+", shorter.lower())) - Counter(re.findall(r"\w+", longer.lower()))
        assert not kept


def test_texts_use_only_the_lexemes_of_their_part(many: list[Response]) -> None:
    held_out = {
        word for channel in CHANNELS for word in (channel.lexemes(+1, "held_out")) if channel.name == "elaboration"
    }
    assert not any(word in render(text, "training") for text in many[:500] for word in held_out)
    assert any(word in render(text, "held_out") for text in many[:100] for word in held_out)


def test_texts_are_varied_and_whole_sentences(many: list[Response]) -> None:
    rendered = [render(text) for text in many]
    assert len(set(rendered)) == len(rendered)
    for text in rendered:
        assert "{" not in text
        assert "  " not in text
        assert text[-1] in '."'
        for line in text.splitlines():
            first = re.sub(r"^\W+", "", line)[:1]
            assert not line or first.isupper(), line
    lengths = sorted(len(text.split()) for text in rendered)
    assert lengths[0] > 30
    assert lengths[-1] < 170


def test_prompts_read_back(many: list[Response]) -> None:
    for text in many:
        prompt = text.prompt
        assert read_prompt(prompt.text, prompt.key) == prompt
        assert set(prompt.asked) <= set(prompt.truth)
        assert len(set(prompt.asked)) == 2
        assert prompt.record.messages[0].role == "user"
    with pytest.raises(DataError, match="not a prompt of the world"):
        read_prompt("What is love?")


def test_domains_are_several_and_their_subjects_distinct() -> None:
    assert len(DOMAINS) >= 4
    subjects = [subject for domain in DOMAINS for subject in domain.subjects]
    assert len(set(subjects)) == len(subjects)
    for domain in DOMAINS:
        for point in domain.points:
            assert len(set(domain.possible(point))) == len(domain.possible(point)) >= 2
    assert {write_prompt(0, f"k{i}").domain.name for i in range(100)} == {domain.name for domain in DOMAINS}
