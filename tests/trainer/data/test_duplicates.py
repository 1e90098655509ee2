import numpy as np

from schemas.manifest import Duplicates
from trainer.data.dataset import LabelledImages
from trainer.data.duplicates import count_known, find_duplicates


def part(values: list[int], labels: list[int] | None = None, names: list[str] | None = None) -> LabelledImages:
    """An image of one pixel for each value."""
    pixels = np.array(values, np.uint8).reshape(-1, 1, 1, 1)
    return LabelledImages(
        pixels, np.array(labels or [0] * len(values)), np.array([n.encode() for n in names]) if names else None
    )


def test_where_all_images_differ_there_is_nothing_to_say() -> None:
    found = find_duplicates(part([1, 2, 3, 3]), part([4, 5]), part([6, 7, 7]))
    assert (found.duplicates, found.notes) == (Duplicates(validation=0, test=0), ())


def test_images_that_are_learnt_from_and_judged_by_are_counted_and_named() -> None:
    found = find_duplicates(part([9, 1, 2, 3]), part([3, 4, 3]), part([0, 255, 2, 5]))
    assert found.duplicates == Duplicates(validation=2, test=1)
    assert found.notes == (
        "2 of 3 validation images are training images too: image 0 = image 3, image 2 = image 3",
        "1 of 4 test images are training images too: image 2 = image 2",
    )


def test_images_of_a_part_that_are_in_one_of_the_others_are_counted_once() -> None:
    assert count_known(part([1, 2, 3, 4]), part([1, 2]), part([2, 9, 4])) == 3


def test_a_few_are_named_and_the_rest_counted() -> None:
    same = list(range(10))
    names = [f"cat/{i}.jpg" for i in same]
    found = find_duplicates(part(same, names=names), part([77]), part(same, names=[f"dog/{i}.jpg" for i in same]))
    assert found.duplicates.test == 10
    assert "dog/0.jpg = cat/0.jpg, dog/1.jpg = cat/1.jpg, dog/2.jpg = cat/2.jpg, ..." in found.notes[0]


def test_images_in_validation_and_test_are_counted_too() -> None:
    found = find_duplicates(part([1]), part([2, 3]), part([3, 4]))
    assert found.notes == ("1 of 2 test images are validation images too",)


def test_equal_images_with_different_labels_are_named_wherever_they_are() -> None:
    train = part([1, 1, 2], [0, 1, 0], ["a/1.png", "b/1.png", "a/2.png"])
    found = find_duplicates(train, part([5]), part([2, 6], [1, 1], ["b/2.png", "b/6.png"]))
    assert found.notes[-1] == ("2 images occur twice with different labels: a/1.png = b/1.png, a/2.png = b/2.png")
