"""What a run decides before it starts."""

import dataclasses

import pytest

from configs import default
from medtok_jax.training.setup import keeps_states
from preprocessing.common.errors import InputError


@dataclasses.dataclass
class Device:
    """An accelerator of so many bytes; None where it does not tell."""

    size: int | None
    platform: str = "gpu"

    def memory_stats(self) -> dict | None:
        return None if self.size is None else {"bytes_limit": self.size}


@pytest.fixture
def decide(data):
    """Decides for the hand-made data."""

    def make(asked: str, device: Device, trained: bool = False) -> bool:
        config = default.get_config()
        with config.unlocked():
            config.data.states_on_device, config.model.text_encoder_trainable = asked, trained
        return keeps_states(config, data, device)

    return make


def test_states_lie_on_an_accelerator_with_room(decide, data):
    size = data.cache.states.nbytes
    assert decide("auto", Device(int(2.6 * size)))
    assert not decide("auto", Device(int(2.4 * size)))
    assert not decide("auto", Device(None))
    assert decide("yes", Device(int(1.1 * size)))
    assert decide("yes", Device(None))
    assert not decide("no", Device(100 * size))
    assert not decide("yes", Device(100 * size), trained=True)
    assert not decide("auto", Device(None, platform="cpu"))
    assert decide("yes", Device(None, platform="cpu"))


def test_states_that_do_not_fit_are_told(decide, data):
    with pytest.raises(InputError, match=r"data.states_on_device is 'yes', but .* do not fit"):
        decide("yes", Device(data.cache.states.nbytes // 2))
