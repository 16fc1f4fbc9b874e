"""May this viewer see this title? Three answers, by one rule, from an age distribution and a rating.

Pure: nothing is read or written, and the same arguments give the same decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal
from typing import cast

import numpy as np

from ageveil.types import AgeDistribution, Decision, Outcome, Policy, Rating


def settle(rating: Rating, policy: Policy) -> Decision | None:
    """Decide what the rating and the policy decide alone, without a face.

    The first line that fits counts:

        refused to all                                    deny
        minimum age 0, or kind "none"                     allow
        advisory                                          allow: advice never denies
        no minimum age (undecided)                        step up
        voluntary, and the policy waives those            allow
        accompanied, and beside an adult no age is set    allow

    Returns:
        The decision, with probabilities None and `calibrated` False since no model was asked; or None where
        the viewer's age must be known. `minimum_age` is the age that the rating names, or the one beside an
        adult where that settled it.
    """
    waived = policy.waive_voluntary and rating.kind == "voluntary"
    beside_adult = policy.accompanied and rating.accompanied_minimum_age == 0
    lines: tuple[tuple[bool, Outcome, str], ...] = (
        (rating.kind == "refused", "deny", "is refused classification, so it is denied to everybody"),
        (rating.minimum_age == 0 or rating.kind == "none", "allow", "is open to every age"),
        (rating.kind == "advisory", "allow", "is advice, and advice never denies"),
        (rating.minimum_age is None, "step_up", "sets no minimum age yet, so other proof is needed"),
        (waived, "allow", "is voluntary and waived by the policy"),
        (beside_adult, "allow", "is open to every age beside an adult, and an adult is there"),
    )  # fmt: skip
    for fits, outcome, because in lines:
        if fits:
            return Decision(
                outcome=outcome,
                rating=rating,
                policy=policy,
                minimum_age=required_age(rating, policy),
                probability_at_least=None,
                probability_below=None,
                calibrated=False,
                reason=f"The rating {rating.mark} {because}.",
                buffer_source="none" if policy.buffer is None else "hand",
            )
    return None


def decide(distribution: AgeDistribution, rating: Rating, policy: Policy = Policy(buffer=0)) -> Decision:
    """Decide whether a viewer of this age distribution may see a title of this rating.

    What `settle` answers is settled. Otherwise, with the minimum age T (the one beside an adult where the
    policy says that one is there and the rating has such a rule), the buffer b and the confidence c:
    "allow" if P(age >= T + b) >= c, else "deny" if P(age < T) >= c, else "step_up". Both comparisons are
    exact, without a tolerance. For a model that knows age groups only, a group with years on both sides
    counts toward neither probability.

    Args:
        distribution: Of the viewer's age; for several photographs of one viewer, what `fuse` returns.
        rating: What the title is rated.
        policy: How sure an answer must be. Its buffer is a whole number: nothing is looked up here, that is
            what `ageveil.pipeline.Pipeline.terms` is for.

    Raises:
        ValueError: An age must be known and the policy's buffer is None.

    Source:
        The confidence is that of a selective classifier, which may abstain: Chow, "On optimum recognition
        error and reject tradeoff", IEEE Transactions on Information Theory 16 (1970), 41-46.
    """
    settled = settle(rating, policy)
    if settled is not None:
        return settled
    if policy.buffer is None:
        raise ValueError("a decision needs a buffer in whole years; `Pipeline.terms` finds the stored one")
    required = cast(int, required_age(rating, policy))  # settle has answered for ratings without an age
    at_least = float(distribution.at_least(required + policy.buffer))
    below = float(distribution.below(required))
    outcome: Outcome = "step_up"
    if at_least >= policy.confidence:
        outcome = "allow"
    elif below >= policy.confidence:
        outcome = "deny"
    return Decision(
        outcome=outcome,
        rating=rating,
        policy=policy,
        minimum_age=required,
        probability_at_least=at_least,
        probability_below=below,
        calibrated=distribution.approach in distribution.model.calibrated,
        reason=_reason(outcome, rating, policy, at_least, below, groups_only=distribution.years is None),
        buffer_source="hand",
    )


def required_age(rating: Rating, policy: Policy) -> int | None:
    """The minimum age that holds under the policy, in years; None where the rating has none."""
    if policy.accompanied and rating.accompanied_minimum_age is not None:
        return rating.accompanied_minimum_age
    return rating.minimum_age


def fuse(distributions: Sequence[AgeDistribution]) -> AgeDistribution:
    """Combine the distributions of several photographs of one viewer into one.

    It is their arithmetic mean, the linear opinion pool: no event becomes more probable than in the surest
    member. A product of probabilities would count the photographs as independent evidence; they show the
    same face to the same model and share its error, so the product is far too sure.

    Args:
        distributions: One or more, by the same model and approach, in any order.

    Raises:
        ValueError: There is none, or they differ in model, approach or resolution.

    Source:
        Stone, "The opinion pool", Annals of Mathematical Statistics 32 (1961), 1339-1342.
    """
    if not distributions:
        raise ValueError("expected one age distribution or more, got none")
    first = distributions[0]
    for other in distributions[1:]:
        if other.model != first.model:
            names = f"{first.model.name} {first.model.version} and {other.model.name} {other.model.version}"
            raise ValueError(f"expected distributions of one model with the same weights, got {names}")
        if other.approach != first.approach:
            raise ValueError(
                f"expected distributions of one approach, got {first.approach} and {other.approach}"
            )
    years = [one.years for one in distributions if one.years is not None]
    if not years:
        groups = np.mean([one.groups for one in distributions], axis=0)
        return AgeDistribution.from_groups(groups, approach=first.approach, model=first.model)
    if len(years) < len(distributions):
        raise ValueError("expected distributions of one resolution, got some over years and some over groups")
    return AgeDistribution.from_years(np.mean(years, axis=0), approach=first.approach, model=first.model)


def _reason(
    outcome: Outcome, rating: Rating, policy: Policy, at_least: float, below: float, *, groups_only: bool
) -> str:
    """One sentence with the figures behind a decision that rests on a face."""
    required, buffer = cast(int, required_age(rating, policy)), policy.buffer or 0
    asked = f"The rating {rating.mark} asks for {required} years"
    if required != rating.minimum_age:
        asked += " beside an adult"
    if buffer:
        asked += f" and the buffer for {buffer} more"
    older = f"{required + buffer} or older"
    needed = f"{policy.confidence} is required"
    if outcome == "allow":
        return f"{asked}; the viewer is {older} with probability {_figure(at_least)}, and {needed}."
    if outcome == "deny":
        return f"{asked}; the viewer is under {required} with probability {_figure(below)}, and {needed}."
    straddling = " (age groups with years on both sides count for neither)" if groups_only else ""
    return (
        f"{asked}; the viewer is {older} with probability {_figure(at_least)} and under {required} with "
        f"probability {_figure(below)}{straddling}; neither reaches the {policy.confidence} required, "
        "so other proof is needed."
    )


def _figure(probability: float) -> str:
    """Four decimals, rounded down, so that a figure never seems to reach a confidence that it misses."""
    return str(Decimal(str(probability)).quantize(Decimal("0.0001"), ROUND_DOWN))
