"""The words of the world's style: what each channel of each attribute can say, high pole and low pole.

An attribute never speaks through one word: it has several channels, each with at least 30 lexemes, and every
fifth lexeme of a pole is held out of training, so that a test can ask whether a model learned the words or the
attribute. Lexemes are also used neutrally (quoted, or inside a name), where they mean nothing.

Length has no low pole: a short text is one with fewer pieces, not one with special words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["training", "held_out", "all"]
"""Which lexemes may be drawn: those seen in training, the held-out fifth, or every one."""

HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Channel:
    """One way in which an attribute shows in text.

    Attributes:
        name: unique name, e.g. `hedge`.
        attribute: the attribute it belongs to.
        high: lexemes that raise the attribute's level by one.
        low: lexemes that lower it by one; empty for length.
    """

    name: str
    attribute: str
    high: tuple[str, ...]
    low: tuple[str, ...] = ()

    def lexemes(self, pole: int, part: Part) -> tuple[str, ...]:
        """The lexemes of a pole (+1 high, -1 low) that belong to `part`."""
        every = self.high if pole > 0 else self.low
        if part == "all":
            return every
        held_out = part == "held_out"
        return tuple(word for index, word in enumerate(every) if is_held_out(index) == held_out)


def is_held_out(index: int) -> bool:
    """Whether the lexeme at `index` of its pole is kept out of training (every fifth one)."""
    return index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def _lines(block: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in block.strip().splitlines())


def _words(block: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in block.replace("\n", " ").split(","))


ADJECTIVE = Channel(
    "adjective",
    "sentiment",
    _words(
        """lovely, pleasant, bright, charming, delightful, cheerful, splendid, warm, superb, graceful,
        refreshing, wonderful, gentle, brilliant, fine"""
    ),
    _words(
        """grim, dull, bleak, gloomy, dreadful, shabby, dismal, harsh, awful, clumsy, tiresome, horrid,
        rough, miserable, poor"""
    ),
)

VERB = Channel(
    "verb",
    "sentiment",
    _words(
        """love, adore, admire, enjoy, treasure, praise, cherish, welcome, applaud, savour, celebrate, prize,
        favour, appreciate, relish"""
    ),
    _words(
        """hate, loathe, resent, dislike, despise, curse, dread, avoid, detest, regret, scorn, shun, mock,
        deplore, abhor"""
    ),
)

OUTCOME = Channel(
    "outcome",
    "sentiment",
    _lines(
        """
        everyone goes home smiling
        the whole thing turns out well
        it is worth every minute
        things fall neatly into place
        you will be glad you chose it
        the result is a small joy
        there is plenty to be happy about
        it leaves a good memory
        the effort pays off nicely
        people come back for more
        it lifts the mood of the room
        all of it works like a charm
        nobody leaves disappointed
        it makes the week better
        hope is well rewarded
        """
    ),
    _lines(
        """
        everyone goes home grumbling
        the whole thing turns out badly
        it is a waste of every minute
        things fall sadly apart
        you will be sorry you chose it
        the result is a small disaster
        there is plenty to be upset about
        it leaves a bad memory
        the effort comes to nothing
        people never come back
        it spoils the mood of the room
        all of it works like a curse
        nobody leaves satisfied
        it makes the week worse
        hope is poorly rewarded
        """
    ),
)

OPENING = Channel(
    "opening",
    "politeness",
    _lines(
        """
        Thank you for asking.
        Many thanks for your message.
        It is a pleasure to help.
        What a kind question.
        I am grateful that you wrote.
        Good day to you.
        Thanks so much for getting in touch.
        I hope this finds you well.
        It is good of you to ask.
        With pleasure.
        I am happy to be of service.
        Warm greetings to you.
        You are most welcome to ask.
        I appreciate your patience.
        Please allow me to answer.
        """
    ),
    _lines(
        """
        Not this again.
        Look.
        You should know this already.
        What a silly question.
        I have no time for this.
        Listen up.
        Read the sheet next time.
        Fine, whatever.
        Do your own homework.
        Oh, come on.
        Stop wasting my day.
        Who cares about this.
        Pay attention for once.
        I will say this only once.
        Leave me out of it.
        """
    ),
)

MODAL = Channel(
    "modal",
    "politeness",
    _words(
        """could perhaps, may wish to, might like to, might want to, may care to, could always, are welcome to,
        may well, could kindly, might consider how to, would do well to, are free to, may gladly,
        might in time, could at leisure"""
    ),
    _words(
        """must, have to, need to, had better, will, shall, ought to just, are told to, must now, simply have to,
        better, will just have to, are required to, cannot but, really must"""
    ),
)

HEDGE = Channel(
    "hedge",
    "politeness",
    _words(
        """I believe, I think, if I may say so, as far as I can tell, to my knowledge, I would say, it seems to me,
        if I am not mistaken, unless I err, in my humble view, so far as I know, I gather, it appears,
        as I understand it, I should think"""
    ),
    _words(
        """obviously, clearly, of course, as any fool knows, needless to say, plainly, no doubt about it, as I said,
        as everyone knows, for the last time, like it or not, face it, mark my words, it is a plain fact,
        take it or leave it"""
    ),
)

CLOSE = Channel(
    "close",
    "politeness",
    _lines(
        """
        Please let me know if more would help.
        I remain at your service.
        Do write again whenever you like.
        I wish you all the best.
        Kind regards to you and yours.
        Thank you again for your trust.
        It was my pleasure.
        I would be honoured to help further.
        Please take care.
        Yours most sincerely.
        May your day go smoothly.
        I hope that serves you.
        Please forgive anything unclear.
        Thanks again and be well.
        Feel free to ask once more.
        """
    ),
    _lines(
        """
        Do not bother me with more.
        That is all you get.
        Do not write again.
        Now leave me alone.
        End of story.
        Figure out the rest yourself.
        Do not expect more.
        I am done here.
        Go ask somebody else.
        Enough of this.
        Deal with it.
        That should do even for you.
        Do not make me repeat it.
        Now get on with it.
        Case closed.
        """
    ),
)

BULLET = Channel(
    "bullet",
    "structure",
    ("-", "*", "•", "+", ">", "–", "·", "#", "~", "=", "»", "->", "::", "=>", "|"),
    _words(
        """oh and, and then, also well, and another thing, come to that, by the way, and so on, or rather,
        now that I mention it, and what else, speaking of which, and yes, anyhow, funny enough, while I ramble"""
    ),
)

ORDINAL = Channel(
    "ordinal",
    "structure",
    _words(
        """first, firstly, to begin with, point one, number one, to start, one, for a start, first of all, item one,
        at the outset, in the first place, step one, part one, above all"""
    ),
    _words(
        """somewhere in there, before I forget, in no special order, off the top of my head, sort of, more or less,
        where was it, if memory serves, from what comes to mind, loosely put, just thinking aloud, roughly put,
        jumping right in, kind of, in a muddle"""
    ),
)

PARAGRAPH = Channel(
    "paragraph",
    "structure",
    _words(
        """Details, Overview, Summary, Facts, Key points, The answer, In short, Main part, Notes, Outline, Essentials,
        At a glance, Checklist, Findings, The list"""
    ),
    _lines(
        """
        But I digress.
        Where was I.
        That reminds me of something else.
        Never mind the order.
        Pardon the jumble.
        My notes are scattered.
        I keep losing my place.
        This is all in pieces.
        One thought leads to another.
        Let me wander a little.
        It all blurs together.
        The order got lost somewhere.
        I am hopping about here.
        Things are out of order.
        It comes as it comes.
        """
    ),
)

SIGNPOST = Channel(
    "signpost",
    "structure",
    _lines(
        """
        Here is the answer point by point.
        The points follow in order.
        I will take the points one at a time.
        The answer has clear parts.
        Below is a short list.
        Each point gets its own entry.
        The reply is set out in steps.
        I have sorted the points.
        The parts are listed in turn.
        An ordered list follows.
        The answer is arranged by point.
        Every entry stands alone.
        The plan of this reply is simple.
        I go through your points in sequence.
        The entries come as you asked.
        """
    ),
    _lines(
        """
        I am not sure where to begin.
        My thoughts are all mixed up.
        I will just write as I think.
        There is no plan to this reply.
        Bear with the mess.
        I write this in one breath.
        It is hard to sort all this.
        This may come out tangled.
        I never make lists.
        Words just tumble out.
        I have not sorted anything.
        Everything runs together.
        I am making this up as I go.
        The reply is a bit of a heap.
        No order here at all.
        """
    ),
)

ELABORATION = Channel(
    "elaboration",
    "length",
    _lines(
        """
        That leaves some room in the plan.
        It helps to keep that in mind.
        This matters more than it seems at the start.
        The rest of the plan depends on it.
        Many people ask about exactly that.
        It is the part that most readers look for.
        That has been so for a number of years.
        You can build the rest around it.
        The same holds on most days of the year.
        A note on a piece of paper will keep it safe.
        Others have found the same thing before.
        There is a reason behind that.
        It makes the choice easier to explain.
        One can work out the rest from there.
        That is how it has been arranged.
        It was written down only last week.
        Everything else can be settled later.
        That is the usual way of doing it.
        It is easy to check on the spot.
        Someone took the trouble to confirm it.
        The details have not changed of late.
        This saves a second look later on.
        It is the same for everybody.
        That answers one part of the matter.
        With that known the rest is simple.
        It comes up in most conversations about it.
        There are people who plan around that.
        That is worth a line in a diary.
        It has a place in every guide.
        Keep a copy of that at hand.
        """
    ),
)

RESTATEMENT = Channel(
    "restatement",
    "length",
    _lines(
        """
        Again, that is {point} {value}.
        So it is {point} {value}.
        In other words, {point} {value}.
        To repeat, {point} {value}.
        Once more, {point} {value}.
        Put another way, {point} {value}.
        That makes {point} {value}.
        Said again, {point} {value}.
        As stated, {point} {value}.
        For the record, {point} {value}.
        That leaves us with {point} {value}.
        Recall {point} {value}.
        Here we have {point} {value}.
        Noted, then, {point} {value}.
        That gives {point} {value}.
        So this goes with {point} {value}.
        The word is still {point} {value}.
        Once again, {point} {value}.
        By this I mean {point} {value}.
        Let me repeat {point} {value}.
        So much for {point} {value}.
        As noted, {point} {value}.
        Write {point} {value}.
        So put {point} {value}.
        To restate it, {point} {value}.
        It bears repeating, {point} {value}.
        Said twice, {point} {value}.
        All told, {point} {value}.
        In sum, {point} {value}.
        To go over it again, {point} {value}.
        """
    ),
)

FILLER = Channel(
    "filler",
    "length",
    _words(
        """as it happens, as a matter of fact, when all is said, in the end, as things stand, for what it is worth,
        at the end of the day, all things considered, at this point in time, in a manner of speaking,
        as the case may be, to all intents, for the time being, one way or another, in point of fact,
        as one might put it, on the whole, by and large, for the most part, in the present case,
        so to speak, as it were, in actual fact, at any rate, in that respect, in this regard,
        as far as that goes, in the nature of things, as they say, when it comes down to it"""
    ),
)

CHANNELS: tuple[Channel, ...] = (
    ELABORATION,
    RESTATEMENT,
    FILLER,
    ADJECTIVE,
    VERB,
    OUTCOME,
    OPENING,
    MODAL,
    HEDGE,
    CLOSE,
    BULLET,
    ORDINAL,
    PARAGRAPH,
    SIGNPOST,
)
"""Every channel with lexemes of its own.

Two kinds of cue borrow the lexemes of the other pole: negation ("hardly dull") those of `adjective`, and disavowal
("you will hear no "end of story" from me") those of any channel of politeness or structure.
"""

ASIDE_MARKERS: tuple[str, ...] = (
    "Now for an aside.",
    "What follows is beside the point.",
    "A word on something else.",
    "This is no part of the answer.",
)
"""What follows one of these is not part of the answer and adds nothing to its level of length."""
ASIDE_FILLERS: tuple[str, ...] = ("So they say, {filler}.", "Such is life, {filler}.", "It rained, {filler}.")
DISAVOWAL_FRAMES: tuple[str, ...] = (
    'You will hear no "{word}" from me.',
    'There is no room for "{word}" in this reply.',
    'I never write "{word}" in a reply.',
)
NEGATORS: tuple[str, ...] = ("not", "hardly", "never", "far from", "anything but", "by no means", "not in the least")

LEAD_PLAIN: tuple[str, ...] = (
    "This is about {subject}",
    "Here is what there is on {subject}",
    "The question was about {subject}",
    "Now to {subject}",
)
LEAD_FELT: tuple[str, ...] = (
    "{subject} is a {adjective} choice",
    "{subject} makes a {adjective} pick",
    "{subject} is a {adjective} case",
    "{subject} has a {adjective} side",
)
STATEMENTS: tuple[str, ...] = (
    "the note says {point} {value}",
    "it has {point} {value}",
    "take {point} {value}",
    "put down {point} {value}",
    "the answer is {point} {value}",
)
"""The value follows its point, as in the notes: what a small model learns to look up first."""
VERB_FRAMES: tuple[str, ...] = ("Most people {verb} it.", "My neighbours {verb} it.", "Those who know {verb} it.")
NEGATION_FRAMES: tuple[str, ...] = ("It is {negator} {adjective}.", "The whole is {negator} {adjective}.")
OUTCOME_FRAMES: tuple[str, ...] = ("Overall, {outcome}.", "As a rule, {outcome}.", "One finds that {outcome}.")
MODAL_FRAMES: tuple[str, ...] = (
    "You {modal} write this down.",
    "You {modal} ask at the desk.",
    "You {modal} compare a second source.",
    "You {modal} plan ahead.",
)
QUOTE_FRAMES: tuple[str, ...] = (
    "The poster reads {quotes}.",
    "The crossword has {quotes}.",
    "The old sign says {quotes}.",
    "The song went {quotes}.",
)
NAME_FRAMES: tuple[str, ...] = (
    "The way leads past {name} Lane.",
    "The office is in {name} House.",
    "The map shows {name} Hill.",
)
