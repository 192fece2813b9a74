"""Whatever the patients: everyone is dealt, nobody to two splits, and the shares are kept."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from brainseg_cli.data.splits import SPLITS, assign_split, find_leaks, hash_split, resolve_fold

laws = settings(max_examples=60, deadline=None)

names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.builds("{}_{}_{}".format, st.just("TCGA"), st.sampled_from(["DU", "HT", "CS"]), st.integers(0, 99)),
)
patients = st.lists(names, min_size=5, max_size=60, unique=True)
slices = patients.flatmap(
    lambda known: st.tuples(
        st.just(known),
        st.lists(st.tuples(st.sampled_from(known), st.integers(0, 10**9)), max_size=40),
        st.lists(st.integers(0, 9999), min_size=len(known), max_size=len(known)),
    )
).map(lambda made: [*zip(made[0], made[2], strict=True), *made[1]])
"""(patient, tumour pixels) a slice: each of at least five patients has one or more, in no order."""
seeds = st.integers(0, 2**32)
share = st.integers(1, 100)


def deal(spec: str, rows: list[tuple[str, int]], seed: int) -> dict[str, str]:
    """Patient -> split, once it is sure that there is one for each and for every slice."""
    owners = [patient for patient, _ in rows]
    by_row = assign_split(spec, owners, [pixels for _, pixels in rows], seed=seed).by_row
    assert len(by_row) == len(rows)
    assert not find_leaks(owners, by_row)
    of_patient = dict(zip(owners, by_row, strict=True))
    assert all(of_patient[patient] == split for patient, split in zip(owners, by_row, strict=True))
    return of_patient


@laws
@given(slices, seeds, st.tuples(share, share, share))
def test_shares(rows: list[tuple[str, int]], seed: int, shares: tuple[int, int, int]) -> None:
    of_patient = deal("/".join(map(str, shares)), rows, seed)
    counts = Counter(of_patient.values())
    assert counts.keys() == set(SPLITS)  # none goes without, however small its share
    for name, part in zip(SPLITS, shares, strict=True):
        # two that would have gone without take one each from the largest
        assert abs(counts[name] - len(of_patient) * part / sum(shares)) < 3.5


@laws
@given(slices, seeds, st.integers(3, 5))
def test_folds(rows: list[tuple[str, int]], seed: int, folds: int) -> None:
    of_patient = deal(f"kfold:{folds}", rows, seed)
    counts = Counter(of_patient.values())
    assert counts.keys() == {f"fold-{k}" for k in range(folds)}
    assert max(counts.values()) - min(counts.values()) <= 1
    for fold in range(folds):
        roles = dict(zip(of_patient, resolve_fold(list(of_patient.values()), fold), strict=True))
        assert {patient for patient, role in roles.items() if role == "test"} == {
            patient for patient, split in of_patient.items() if split == f"fold-{fold}"
        }
        assert set(roles.values()) == set(SPLITS)


@laws
@given(slices, seeds, st.sampled_from(["70/15/15", "kfold:3"]), st.randoms(use_true_random=False))
def test_neither_the_order_of_slices_nor_a_second_time_matters(
    rows: list[tuple[str, int]], seed: int, spec: str, shuffler: object
) -> None:
    dealt = deal(spec, rows, seed)
    again = list(rows)
    shuffler.shuffle(again)  # type: ignore[attr-defined]
    assert deal(spec, again, seed) == dealt


@laws
@given(slices, seeds, st.randoms(use_true_random=False))
def test_the_hash_tells_who_is_where_and_no_order(rows: list[tuple[str, int]], seed: int, shuffler: object) -> None:
    dealt = list(deal("70/15/15", rows, seed).items())
    before = hash_split(*zip(*dealt, strict=True))
    shuffler.shuffle(dealt)  # type: ignore[attr-defined]
    assert hash_split(*zip(*dealt, strict=True)) == before
    patient, split = dealt[0]
    moved = [(patient, "val" if split == "train" else "train"), *dealt[1:]]
    assert hash_split(*zip(*moved, strict=True)) != before
