"""The decision rule: boundaries by hand, and properties against whole-number counting."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ageveil.boards import get_rating, load_boards
from ageveil.decision import decide, fuse, settle
from ageveil.types import AGE_GROUPS, AgeDistribution, ModelInfo, Policy, Rating

YEARLY = ModelInfo("yearly", "1", "CC0-1.0", "year", "0" * 64, "a test", calibrated=("mask",))
GROUPED = replace(YEARLY, name="grouped", resolution="group")

LEGAL_18 = Rating("demo", "Nowhere", "18", 18, "legal", None, "films", "a test")


def rated(age: int | None, kind: str = "legal", accompanied: int | None = None) -> Rating:
    return replace(LEGAL_18, mark="X", minimum_age=age, kind=kind, accompanied_minimum_age=accompanied)


def years(shares: dict[int, float], approach: str = "mask") -> AgeDistribution:
    """From {age: probability}."""
    probabilities = np.zeros(101)
    for age, share in shares.items():
        probabilities[age] = share
    return AgeDistribution.from_years(probabilities, approach=approach, model=YEARLY)


def groups(*shares: float) -> AgeDistribution:
    return AgeDistribution.from_groups(np.array(shares), approach="mask", model=GROUPED)


def test_a_decision_that_needs_an_age_needs_a_buffer() -> None:
    with pytest.raises(ValueError, match="a buffer in whole years"):
        decide(years({30: 1.0}), LEGAL_18, Policy())
    # What no face decides needs none.
    assert decide(years({30: 1.0}), rated(0), Policy()).outcome == "allow"


@pytest.mark.parametrize(("rating", "buffer", "source"), [
    (LEGAL_18, 0, "hand"), (LEGAL_18, 4, "hand"), (rated(0), None, "none"), (rated(0), 4, "hand"),
])  # fmt: skip
def test_a_decision_tells_whose_buffer_it_is(rating: Rating, buffer: int | None, source: str) -> None:
    decision = decide(years({30: 1.0}), rating, Policy(buffer=buffer))
    assert (decision.policy.buffer, decision.buffer_source, decision.buffer_statement) == (
        buffer, source, None,
    )  # fmt: skip


# Quarters are exact in binary, so a confidence of 0.75 can be reached exactly.


@pytest.mark.parametrize(
    ("at_least_18", "outcome"),
    [
        (1.0, "allow"),
        (0.75, "allow"),
        (0.75 - 2**-20, "step_up"),
        (0.5, "step_up"),
        (0.25 + 2**-20, "step_up"),
        (0.25, "deny"),
        (0.0, "deny"),
    ],
)
def test_confidence_exactly_reached(at_least_18: float, outcome: str) -> None:
    distribution = years({18: at_least_18, 17: 1 - at_least_18})
    decision = decide(distribution, LEGAL_18, Policy(confidence=0.75, buffer=0))
    assert decision.outcome == outcome
    assert decision.probability_at_least == at_least_18
    assert decision.probability_below == 1 - at_least_18
    assert decision.minimum_age == 18


@pytest.mark.parametrize(
    ("age", "buffer", "outcome"),
    [
        (17, 0, "deny"),
        (18, 0, "allow"),
        (19, 0, "allow"),
        (17, 1, "deny"),
        (18, 1, "step_up"),
        (19, 1, "allow"),
        (17, 5, "deny"),
        (18, 5, "step_up"),
        (22, 5, "step_up"),
        (23, 5, "allow"),
        (24, 5, "allow"),
        (0, 0, "deny"),
        (100, 0, "allow"),
        (100, 82, "allow"),  # 18 + 82 = 100, the last year there is
        (100, 83, "step_up"),  # nobody is older than 100
        (100, 1000, "step_up"),
    ],
)
def test_an_age_known_for_sure(age: int, buffer: int, outcome: str) -> None:
    assert decide(years({age: 1.0}), LEGAL_18, Policy(buffer=buffer)).outcome == outcome


def test_a_distribution_by_hand() -> None:
    distribution = years({15: 0.125, 17: 0.125, 18: 0.25, 20: 0.25, 30: 0.25})
    plain = decide(distribution, LEGAL_18, Policy(confidence=0.75, buffer=0))
    assert (plain.outcome, plain.probability_at_least, plain.probability_below) == ("allow", 0.75, 0.25)
    buffered = decide(distribution, LEGAL_18, Policy(confidence=0.75, buffer=1))
    assert (buffered.outcome, buffered.probability_at_least, buffered.probability_below) == (
        "step_up",
        0.5,
        0.25,
    )
    older = decide(distribution, rated(21), Policy(confidence=0.75, buffer=0))
    assert (older.outcome, older.probability_at_least, older.probability_below) == ("deny", 0.25, 0.75)


def test_the_default_policy_asks_for_99_percent() -> None:
    assert decide(years({30: 0.99, 10: 0.01}), LEGAL_18).outcome == "allow"
    assert decide(years({30: 0.98, 10: 0.02}), LEGAL_18).outcome == "step_up"
    assert decide(years({30: 0.01, 10: 0.99}), LEGAL_18).outcome == "deny"
    assert decide(years({30: 1.0}), LEGAL_18).policy == Policy(
        0.99, 0, accompanied=False, waive_voluntary=False
    )


GROUP_OF = {age: index for index, (low, high) in enumerate(AGE_GROUPS) for age in range(low, high + 1)}


@pytest.mark.parametrize(
    ("age_in_group", "minimum", "outcome"),
    [
        # 15-20 lies across 16, 17 and 18 (and up to 20), not across 15 or 21
        (15, 15, "allow"), (15, 16, "step_up"), (15, 17, "step_up"), (15, 18, "step_up"),
        (15, 20, "step_up"), (15, 21, "deny"),
        # 8-13 lies across 10, 12 and 13, not across 8 or 14
        (8, 8, "allow"), (8, 10, "step_up"), (8, 12, "step_up"), (8, 13, "step_up"), (8, 14, "deny"),
        # 4-6 lies across 6, not across 4 or 7
        (4, 4, "allow"), (4, 6, "step_up"), (4, 7, "deny"),
        # 0-2 and 25-32 lie wholly on one side
        (0, 3, "deny"), (25, 18, "allow"), (25, 25, "allow"),
    ],
)  # fmt: skip
def test_a_group_across_the_threshold_counts_for_neither_side(
    age_in_group: int, minimum: int, outcome: str
) -> None:
    shares = [0.0] * 8
    shares[GROUP_OF[age_in_group]] = 1.0
    decision = decide(groups(*shares), rated(minimum))
    assert decision.outcome == outcome
    assert decision.probability_at_least == (1.0 if outcome == "allow" else 0.0)
    assert decision.probability_below == (1.0 if outcome == "deny" else 0.0)


def test_a_straddling_group_beside_others() -> None:
    # 0-2, 4-6, 8-13 below 17; 15-20 across; the rest above
    decision = decide(
        groups(0, 0.0625, 0.0625, 0.25, 0.5, 0.125, 0, 0), rated(17), Policy(confidence=0.625, buffer=0)
    )
    assert (decision.outcome, decision.probability_at_least, decision.probability_below) == (
        "allow",
        0.625,
        0.125,
    )
    decision = decide(groups(0, 0, 0, 0.5, 0.5, 0, 0, 0), rated(17), Policy(confidence=0.625, buffer=0))
    assert (decision.outcome, decision.probability_at_least, decision.probability_below) == (
        "step_up",
        0.5,
        0.0,
    )


@pytest.mark.parametrize(
    ("board", "mark", "policy", "outcome", "age"),
    [
        ("mpa", "G", Policy(), "allow", 0),
        ("tv", "TV-Y", Policy(), "allow", 0),
        ("mpa", "PG", Policy(), "allow", None),
        ("mpa", "PG-13", Policy(), "allow", 13),
        ("acb", "M", Policy(), "allow", 15),
        ("tv", "TV-MA", Policy(), "allow", 17),
        ("acb", "RC", Policy(), "deny", None),
        ("acb", "RC", Policy(accompanied=True, waive_voluntary=True), "deny", None),
        ("esrb", "RP", Policy(), "step_up", None),
        ("esrb", "RP", Policy(accompanied=True, waive_voluntary=True), "step_up", None),
        ("esrb", "AO", Policy(waive_voluntary=True), "allow", 18),
        ("mpa", "NC-17", Policy(waive_voluntary=True), "allow", 18),
        ("mpa", "R", Policy(accompanied=True), "allow", 0),
        ("bbfc", "12A", Policy(accompanied=True), "allow", 0),
    ],
)
def test_settled_without_a_face(board: str, mark: str, policy: Policy, outcome: str, age: int | None) -> None:
    decision = settle(get_rating(board, mark), policy)
    assert decision is not None
    assert (decision.outcome, decision.minimum_age) == (outcome, age)
    assert (decision.probability_at_least, decision.probability_below, decision.calibrated) == (
        None,
        None,
        False,
    )
    for viewer in (years({5: 1.0}), years({50: 1.0}), groups(0, 0, 0, 1, 0, 0, 0, 0)):
        assert decide(viewer, get_rating(board, mark), policy) == decision


@pytest.mark.parametrize(
    ("board", "mark", "policy"),
    [
        ("pegi", "18", Policy()),
        ("pegi", "18", Policy(accompanied=True, waive_voluntary=True)),
        ("mpa", "R", Policy()),
        ("mpa", "R", Policy(waive_voluntary=True)),
        ("mpa", "NC-17", Policy(accompanied=True)),
        ("esrb", "M", Policy()),
        ("fsk", "12 cinema", Policy(accompanied=True)),  # beside an adult, but from 6
        ("fsk", "12", Policy(accompanied=True)),
    ],
)
def test_not_settled_without_a_face(board: str, mark: str, policy: Policy) -> None:
    assert settle(get_rating(board, mark), policy) is None


def test_refused_outweighs_every_other_fact() -> None:
    for age in (None, 0, 18):
        decision = settle(rated(age, "refused", 0), Policy(accompanied=True, waive_voluntary=True))
        assert decision is not None
        assert decision.outcome == "deny"


@pytest.mark.parametrize(
    ("age", "alone", "beside_adult", "beside_adult_with_buffer_1"),
    [
        (5, "deny", "deny", "deny"),
        (6, "deny", "allow", "step_up"),
        (7, "deny", "allow", "allow"),
        (11, "deny", "allow", "allow"),
        (12, "allow", "allow", "allow"),
    ],
)
def test_a_cinema_film_from_12_or_from_6_beside_an_adult(
    age: int, alone: str, beside_adult: str, beside_adult_with_buffer_1: str
) -> None:
    rating = get_rating("fsk", "12 cinema")
    viewer = years({age: 1.0})
    assert decide(viewer, rating).outcome == alone
    assert decide(viewer, rating).minimum_age == 12
    assert decide(viewer, rating, Policy(accompanied=True, buffer=0)).outcome == beside_adult
    assert decide(viewer, rating, Policy(accompanied=True, buffer=0)).minimum_age == 6
    assert decide(viewer, rating, Policy(accompanied=True, buffer=1)).outcome == beside_adult_with_buffer_1


def test_calibrated_only_for_the_approaches_of_the_model() -> None:
    assert decide(years({30: 1.0}, "mask"), LEGAL_18).calibrated is True
    assert decide(years({30: 1.0}, "mosaic"), LEGAL_18).calibrated is False


def test_the_reason_is_a_sentence_with_the_figures() -> None:
    sure = Policy(confidence=0.75, buffer=2)
    assert decide(years({20: 0.75, 3: 0.25}), LEGAL_18, sure).reason == (
        "The rating 18 asks for 18 years and the buffer for 2 more; the viewer is 20 or older with "
        "probability 0.7500, and 0.75 is required."
    )
    assert decide(years({20: 0.25, 3: 0.75}), LEGAL_18, Policy(confidence=0.75, buffer=0)).reason == (
        "The rating 18 asks for 18 years; the viewer is under 18 with probability 0.7500, "
        "and 0.75 is required."
    )
    assert decide(groups(0, 0, 0, 1, 0, 0, 0, 0), get_rating("mpa", "R")).reason == (
        "The rating R asks for 17 years; the viewer is 17 or older with probability 0.0000 and under 17 with "
        "probability 0.0000 (age groups with years on both sides count for neither); neither reaches the "
        "0.99 required, so other proof is needed."
    )
    child = decide(years({3: 1.0}), get_rating("fsk", "12 cinema"), Policy(accompanied=True, buffer=0))
    assert child.reason.startswith(
        "The rating 12 cinema asks for 6 years beside an adult; the viewer is under 6 "
    )
    refused = settle(get_rating("acb", "RC"), Policy())
    assert refused is not None
    assert refused.reason == "The rating RC is refused classification, so it is denied to everybody."


def test_a_figure_never_seems_to_reach_what_it_misses() -> None:
    decision = decide(years({30: 0.98999, 10: 0.01001}), LEGAL_18)
    assert decision.outcome == "step_up"
    assert "probability 0.9899 " in decision.reason
    assert "0.9900" not in decision.reason


def test_fuse_by_hand() -> None:
    mean = fuse([years({20: 1.0}), years({16: 0.5, 20: 0.5}), years({16: 1.0}), years({30: 1.0})])
    assert (mean.at_least(17), mean.at_least(21), mean.below(17)) == (0.625, 0.25, 0.375)
    assert (mean.approach, mean.model) == ("mask", YEARLY)
    mean = fuse([groups(1, 0, 0, 0, 0, 0, 0, 0), groups(0, 0, 0, 0.5, 0.5, 0, 0, 0)])
    assert mean.groups.tolist() == [0.5, 0, 0, 0.25, 0.25, 0, 0, 0]
    assert mean.years is None


def test_fuse_does_not_count_the_same_photograph_as_new_evidence() -> None:
    one = years({30: 0.75, 10: 0.25})
    assert fuse([one]).at_least(18) == 0.75
    assert fuse([one] * 8).at_least(18) == 0.75
    assert decide(fuse([one] * 8), LEGAL_18, Policy(confidence=0.8, buffer=0)).outcome == "step_up"


def test_fuse_leaves_its_members_alone() -> None:
    first, second = years({20: 1.0}), years({30: 1.0})
    fuse([first, second])
    assert first.at_least(21) == 0.0
    assert second.at_least(21) == 1.0


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "one age distribution or more, got none"),
        ([years({20: 1.0}), years({20: 1.0}, "mosaic")], "of one approach, got mask and mosaic"),
        ([years({20: 1.0}), groups(1, 0, 0, 0, 0, 0, 0, 0)], "of one model .* got yearly 1 and grouped 1"),
        (
            [
                years({20: 1.0}),
                AgeDistribution.from_groups(np.eye(8)[0], approach="mask", model=YEARLY),
            ],
            "of one resolution",
        ),
    ],
)
def test_fuse_refuses_what_does_not_belong_together(members: list[AgeDistribution], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(members)


# Properties. A distribution is the share of 64 drawn ages (or groups), so that every sum of it is exact and
# can be compared with a count; confidences are 64ths too, so that they are often reached exactly.

calm = settings(deadline=None)  # a busy machine is no failure

drawn_ages = st.lists(st.integers(0, 100) | st.integers(10, 25), min_size=64, max_size=64)
drawn_groups = st.lists(st.integers(0, 7), min_size=64, max_size=64)
confidences = st.integers(33, 63).map(lambda count: count / 64)
policies = st.builds(Policy, confidences, st.integers(0, 12), st.booleans(), st.booleans())
ratings = st.sampled_from([rating for board in load_boards().values() for rating in board.ratings])


def from_ages(ages: Sequence[int]) -> AgeDistribution:
    counts = np.bincount(ages, minlength=101)
    return AgeDistribution.from_years(counts / len(ages), approach="mask", model=YEARLY)


def from_groups(drawn: Sequence[int]) -> AgeDistribution:
    counts = np.bincount(drawn, minlength=8)
    return AgeDistribution.from_groups(counts / len(drawn), approach="mask", model=GROUPED)


distributions = drawn_ages.map(from_ages) | drawn_groups.map(from_groups)


def counted(spans: Sequence[tuple[int, int]], minimum: int, policy: Policy) -> str:
    """The rule by counting: each span of years is one equally probable case."""
    surely_older = Fraction(sum(low >= minimum + (policy.buffer or 0) for low, _ in spans), len(spans))
    surely_younger = Fraction(sum(high < minimum for _, high in spans), len(spans))
    if surely_older >= Fraction(policy.confidence):
        return "allow"
    return "deny" if surely_younger >= Fraction(policy.confidence) else "step_up"


@calm
@given(drawn_ages, st.integers(1, 25), policies)
def test_years_agree_with_counting(ages: list[int], minimum: int, policy: Policy) -> None:
    expected = counted([(age, age) for age in ages], minimum, policy)
    assert decide(from_ages(ages), rated(minimum), policy).outcome == expected


@calm
@given(drawn_groups, st.integers(1, 25), policies)
def test_groups_agree_with_counting(drawn: list[int], minimum: int, policy: Policy) -> None:
    expected = counted([AGE_GROUPS[index] for index in drawn], minimum, policy)
    assert decide(from_groups(drawn), rated(minimum), policy).outcome == expected


@calm
@given(distributions, ratings, policies, st.integers(0, 30), confidences)
def test_asking_for_more_never_brings_an_allow(
    distribution: AgeDistribution, rating: Rating, policy: Policy, more: int, confidence: float
) -> None:
    before = decide(distribution, rating, policy).outcome
    stricter = [
        decide(distribution, rating, replace(policy, buffer=(policy.buffer or 0) + more)),
        decide(distribution, rating, replace(policy, confidence=max(policy.confidence, confidence))),
    ]
    if rating.minimum_age is not None and rating.kind not in {"none", "advisory"}:
        stricter.append(decide(distribution, replace(rating, minimum_age=rating.minimum_age + more), policy))
    for after in stricter:
        assert before == "allow" or after.outcome != "allow"


@calm
@given(distributions, ratings, policies)
def test_an_adult_or_a_waiver_never_takes_an_allow_away(
    distribution: AgeDistribution, rating: Rating, policy: Policy
) -> None:
    if decide(distribution, rating, policy).outcome == "allow":
        assert decide(distribution, rating, replace(policy, accompanied=True)).outcome == "allow"
        assert decide(distribution, rating, replace(policy, waive_voluntary=True)).outcome == "allow"


@calm
@given(distributions, ratings, policies)
def test_every_decision_is_whole(distribution: AgeDistribution, rating: Rating, policy: Policy) -> None:
    decision = decide(distribution, rating, policy)
    assert decision.outcome in {"allow", "deny", "step_up"}
    assert (decision.rating, decision.policy) == (rating, policy)
    assert decision.reason.endswith(".")
    assert "\n" not in decision.reason
    settled = settle(rating, policy)
    if settled is not None:
        assert decision == settled
        assert decision.probability_at_least is None
        assert decision.probability_below is None
    else:
        assert isinstance(decision.probability_at_least, float)
        assert isinstance(decision.probability_below, float)
        assert decision.probability_at_least + decision.probability_below <= 1
    if rating.kind == "advisory":
        assert decision.outcome == "allow"
    if rating.kind == "refused":
        assert decision.outcome == "deny"


@calm
@given(st.lists(drawn_ages, min_size=1, max_size=4), st.integers(0, 101))
def test_fuse_is_never_surer_than_its_surest_member(members: list[list[int]], age: int) -> None:
    single = [from_ages(ages) for ages in members]
    fused = fuse(single)
    # rounding of a division by 3 aside, the mean of the members' probabilities
    mean = float(sum(Fraction(sum(one >= age for one in ages), 64) for ages in members) / len(members))
    assert fused.at_least(age) == pytest.approx(mean, abs=1e-12)
    assert fused.at_least(age) <= max(one.at_least(age) for one in single) + 1e-12
    assert fused.below(age) <= max(one.below(age) for one in single) + 1e-12
    assert fuse(single[::-1]).years == pytest.approx(fused.years, abs=1e-12)
