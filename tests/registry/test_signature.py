from __future__ import annotations

import numpy as np
import pytest
import torch

from penstock.base.errors import BadInput
from penstock.registry import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec("image", "float32", (-1, 2, 2)), TensorSpec("age", "int64", (-1,))),
    outputs=(TensorSpec("output", "float32", (-1, 3)),),
)
IMAGE, AGE = np.zeros((4, 2, 2), np.float32), np.zeros(4, np.int64)


def test_arrays_come_back_in_the_order_of_the_signature():
    found = SIGNATURE.check({"age": AGE, "image": np.asfortranarray(IMAGE)})
    assert list(found) == ["image", "age"]
    assert found["image"].flags.c_contiguous


@pytest.mark.parametrize(
    ("given", "said", "fix"),
    [
        ({"image": IMAGE}, 'input "age" int64 [B] is missing', "image, age"),
        ({"imge": IMAGE, "age": AGE}, 'no input "imge"', 'Did you mean "image"?'),
        ({"image": IMAGE.astype("f8"), "age": AGE}, "was given float64", 'astype("float32")'),
        ({"image": IMAGE[0], "age": AGE}, "was given shape [2, 2]", "rows[None]"),
        ({"image": IMAGE[:, :1], "age": AGE}, "was given shape [4, 1, 2]", "[B, 2, 2]"),
        ({"image": IMAGE, "age": AGE[:3]}, "image 4, age 3", "same number of rows"),
        ({"image": [[1.0], [1.0, 2.0]], "age": AGE}, "rows of different shapes", "equal lengths"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(given, said, fix):
    with pytest.raises(BadInput) as caught:
        SIGNATURE.check(given)
    assert said in caught.value.what and fix in caught.value.fix


def test_a_loaded_model_says_what_it_takes(published, blobs, layout):
    from penstock.registry import open_package

    loaded = open_package(blobs, published.digest, layout)
    assert loaded.runtime == "onnx" and '"image" float32 [B, 8, 8]' in repr(loaded)
    with pytest.raises(BadInput, match=r"was given shape \[8, 8\]"):
        loaded(torch.rand(8, 8))
    with pytest.raises(BadInput, match="was given float64"):
        loaded(np.zeros((1, 8, 8)))
    assert loaded({"image": np.zeros((0, 8, 8), np.float32)}).shape == (0, 10)
