"""Measure the training step in PyTorch, in several variants.

- `eager`, `compiled`: the same batches in the same buckets, text states cached; `compiled` uses `torch.compile`;
- `eager, tiers`: like `eager`, with text and cross-attention at the small shape where possible, as in the Flax model;
- `padded to 512`: the published method, with texts padded to 512 wordpieces and the frozen text encoder in every step.

All variants start from the weights of the same Flax model.
"""

import dataclasses

import numpy as np

from eval.speed.setup import LAST_STEP, WIDTHS, Setting, open_run
from eval.speed.timing import Timing, peak_memory, repeat, torch_flops
from medtok_jax.batch import Batch
from medtok_jax.data.input_pipeline import BatchBuilder
from medtok_jax.text.encoder_files import resolve_text_encoder
from medtok_jax.training.inputs import ModelInputs
from medtok_jax.training.setup import Training
from preprocessing.common import extras
from preprocessing.common.errors import InputError

EAGER, COMPILED, TIERS, PADDED = "eager", "compiled", "eager, tiers", "padded to 512"
PADDED_LENGTH = 512
# Batch size of the published training script; larger batches of this length need much memory and are not faster.
PADDED_BATCH = 32


def variants(setting: Setting) -> list[str]:
    """Return the variants that can be measured: none without PyTorch or beyond what `torch_objective` implements."""
    if not extras.installed("torch"):
        return []
    model, text = setting.config.model, setting.config.model.text_encoder_model
    known = {
        "normalize": True,
        "gradient_estimator": "straight_through",
        "simvq": False,
        "ema_decay": 0.0,
        "text_encoder_trainable": False,
        "graph_encoder_type": "hierarchical",
    }
    if model.quantizer_kind == "residual" or any(model[name] != value for name, value in known.items()):
        return []
    if setting.quick:
        return [EAGER]
    has_encoder = text not in WIDTHS
    return [EAGER, COMPILED, TIERS] + ([PADDED] if has_encoder else [])


def measure(setting: Setting, variant: str) -> dict:
    """Return the row of one variant, with the error where it fails."""
    name = f"PyTorch {variant}"
    import torch

    try:
        return _measure(setting, variant, name).report()
    # `torch.compile` needs a C++ compiler, and raises many kinds of errors.
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        return {"name": name, "failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}


def _measure(setting: Setting, variant: str, name: str) -> Timing:
    import torch

    from eval.speed.torch_objective import Objective, to_arrays

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    setting.config.data.states_on_device = "no"  # PyTorch gets its states with the batches.
    ready, steps = open_run(setting, progress=False), setting.steps
    batches = [ready.inputs.train_source(LAST_STEP)[number] for number in range(steps)]
    if variant == PADDED:
        steps = 1
        batches = [padded(ready.inputs, batches[0], PADDED_BATCH)]
    config, dtype = setting.config, torch.float32
    model = build(ready, with_encoder=variant == PADDED).to(device)
    data = ready.inputs.data
    tables, most = data.tables(), data.sizes().max_nodes
    arrays = [to_arrays(batch, tables, most, device, dtype) for batch in batches]
    objective = Objective(model, config, tiers=variant == TIERS).train()
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, config.train.lr, betas=(0.9, 0.98), weight_decay=config.train.weight_decay
    )
    loss_of = torch.compile(objective, dynamic=False) if variant == COMPILED else objective
    mixed = config.train.mixed_precision

    def run() -> None:
        for part in arrays:
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                loss = loss_of(part)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.train.clip_norm)
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    repeats = setting.repeats if variant != PADDED else min(setting.repeats, 3)
    first = repeat(run, 1, warm_up=0)[0]
    seconds = repeat(run, repeats, warm_up=1)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory()
    more = {"peak_bytes": peak, "torch": torch.__version__, "first_seconds": first}
    more["matmul_flops_per_second"] = torch_flops(device, torch.bfloat16 if mixed else torch.float32)
    return Timing(name, seconds, sum(len(batch.valid) for batch in batches), more=more)


def padded(inputs: ModelInputs, batch: Batch, size: int) -> Batch:
    """Return the first codes of a batch, with wordpieces padded to 512 instead of states."""
    rows = batch.index[:size]
    budgets = dataclasses.replace(inputs.builder.budgets, lengths=(PADDED_LENGTH,), small=None)
    plain = BatchBuilder(inputs.data, budgets, num_stacks=1, local_stacks=(0,), token_ids=True)
    return plain(rows.astype(np.int64), np.ones(len(rows), bool), np.full(len(rows), -1))


def build(ready: Training, *, with_encoder: bool):
    """Return the PyTorch model of the converter with the weights of the run.

    Raises:
        InputError: the run uses several devices.
    """
    import torch
    from flax import nnx
    from transformers import BertModel
    from transformers.utils import logging

    from medtok_jax.convert.pytorch import weights as pytorch_weights
    from medtok_jax.convert.pytorch.convert import describe_parts
    from medtok_jax.convert.pytorch.modeling_medtok import FORMAT_VERSION, MedTok
    from medtok_jax.inference.model_writer import flatten

    if ready.inputs.mesh.devices.size > 1:
        raise InputError("PyTorch is compared on one device; set --config.train.num_devices=1.")
    model, sizes, state = ready.config.model, ready.inputs.data.sizes(), ready.state
    config = {
        "model_type": "medtok",
        "format_version": FORMAT_VERSION,
        "model": model.to_dict(),
        "sizes": dataclasses.asdict(sizes),
        "parts": describe_parts(model),
        "text_state_dtype": ready.config.data.cache_dtype,
    }
    if with_encoder:
        path = resolve_text_encoder(model.text_encoder_model)
        # Otherwise transformers would warn that the weights of the pooler are unexpected.
        logging.set_verbosity_error()
        bert = BertModel.from_pretrained(path, add_pooling_layer=False, dtype=torch.float32)  # nosec B615 # A directory.
        bert = bert.eval()
    else:
        bert = _placeholder(sizes.text_width)
    made = MedTok(config, bert)
    variables = {"params": nnx.to_pure_dict(state.params), "fixed": nnx.to_pure_dict(state.fixed)}
    weights = pytorch_weights.to_torch({name: np.asarray(array) for name, array in flatten(variables).items()})
    made.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()}, strict=False)
    return made


def _placeholder(width: int):
    """Return an empty module in place of the text encoder, which cached states do not need."""
    import torch
    from transformers import BertConfig

    module = torch.nn.Module()
    module.config = BertConfig(hidden_size=width)
    return module
