"""A network and a process behind the Model protocol: trained in batches, sampled by index; images are uint8 NHWC."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from iterative_retraining.distributed import Team
from iterative_retraining.models.augment import augment
from iterative_retraining.models.checkpoints import Checkpoints, FitStore
from iterative_retraining.models.fitting import Arrays, Fit, TrainingConfig, flatten_parameters, shuffled_batches
from iterative_retraining.models.graphs import Graphs
from iterative_retraining.models.pieces import DropoutByIndex, pieces
from iterative_retraining.models.process import Net, Process, wide
from iterative_retraining.models.transfer import upload
from iterative_retraining.seeding import noise_by_index, reseed, stage_seed, torch_seed
from iterative_retraining.training_set import TrainingSet, to_uint8, to_unit

CARRIED = "carried/"  # begins the names, in a state, of what one fit hands to the next beside the weights


def with_augment_labels(net: Net, labels: Tensor) -> Net:
    """``net`` with the labels of an augmentation."""
    return lambda x, level: net(x, level, labels)


class NetworkModel:
    """A network that learns and undoes ``process``: a U-Net for EDM, flow matching or DDPM, or a spline flow.

    With a ``team``, every process holds the whole network and sees its share of every batch.
    """

    def __init__(self, process: Process, config: TrainingConfig, device: str = "cpu", team: Team | None = None) -> None:
        self.process, self.config, self.device = process, config, torch.device(device)
        self._on_gpu = self.device.type != "cpu"  # where every look at a number waits for all work before it
        self.team = Team() if team is None else team
        self.net: nn.Module | None = None
        self._flat: nn.Parameter | None = None
        self._carried: Arrays = {}
        self._store: FitStore | None = None
        self._due: dict[str, float] = {}
        self._piece = 0
        self._replays = False
        self._graphs: Graphs | None = None

    def keep_fits(self, store: FitStore, n_images: int = 0, seconds: float = 0.0) -> None:
        """From now on a fit leaves checkpoints in ``store``, and goes on from one of its; how often: see `Checkpoints`.

        Of a team the first process writes, and all read.
        """
        self._store, self._due = store, {"n_images": n_images, "seconds": seconds}

    def split_batches(self, micro_batch: int) -> None:
        """From now on at most ``micro_batch`` images of a batch go through the network at once; 0 for all of them.

        What is trained stays the same up to rounding: noise and dropout belong to the step and the place in its batch.
        """
        self._piece = micro_batch

    def replay_graphs(self) -> None:
        """From now on whole batches are trained on and sampled by `Graphs`, while a fit or a sampling lasts."""
        self._replays = True

    def _new_network(self, seed: int) -> None:
        with torch_seed(seed):
            net = self.config.network.build()
        # channels_last wins in training on two CPU cores and is what tensor cores want (benchmarks/edm_training.py),
        # but not with torch.compile on a CPU.
        plain = self.config.compile and self.device.type == "cpu"
        self.net = net.to(self.device, memory_format=torch.contiguous_format if plain else torch.channels_last)
        self._flat, self._carried = flatten_parameters(self.net), {}
        self._compiled = torch.compile(self.net, dynamic=False) if self.config.compile else self.net

    def _evaluated(self, *arguments: Tensor | None, whole: bool = True) -> Tensor:
        """The network at the configured precision, float32; compiled code only for batches of the ``whole`` size."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            return (self._compiled if whole else self.net)(*arguments).float()

    def _net(self, whole: bool = True) -> Net:
        plain = self.config.precision == "float32" and not self.config.compile
        return self.net if plain else partial(self._evaluated, whole=whole)

    def fit(self, data: TrainingSet, *, seed: int, progress: Callable[[int, int], None] | None = None) -> Self:
        """Trains on ``data``; afterwards the weights are the EMA.

        The first fit, and every fit if ``warm_start`` is False, starts from random weights and sees
        ``n_images_initial`` images; any other goes on from the current weights for ``n_images_per_retraining``.
        ``progress(n_images_seen, n_images)`` is called after each batch.

        Raises NonFiniteLossError if the loss is NaN or infinite.
        """
        from_scratch = self.net is None or not self.config.warm_start
        if from_scratch:
            self._new_network(stage_seed(seed, 0, "weights"))
        n_images = self.config.n_images_initial if from_scratch else self.config.n_images_per_retraining
        fit = Fit(self.net, self._flat, self.config, from_scratch, self._carried)
        with torch_seed(seed, self.device):
            self._train(fit, data, n_images, seed, progress)
        self._carried = fit.finish()
        return self

    def _train(
        self,
        fit: Fit,
        data: TrainingSet,
        n_images: int,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        rng = torch.Generator(self.device).manual_seed(stage_seed(seed, 0, "noise"))
        images, every = self._images(data), 32 if self._on_gpu else 1
        drops = getattr(self.config.network, "dropout", 0.0) > 0
        start = 0
        self._graphs = Graphs(self.device) if self._replays else None
        self.net.train()
        with Checkpoints(self._store, fit, seed, rng, self.team, **self._due) as checkpoints:
            before = checkpoints.resume()
            for index in shuffled_batches(len(data), n_images, self.config.batch_size, stage_seed(seed, 0, "order")):
                start += len(index)
                if start <= before:
                    continue
                # of its own for every step, so that any step can be the first after a resumption
                dropout = stage_seed(seed, fit.n_steps, "dropout 0") if drops else None
                weights = None
                if data.weights is not None:
                    weights = upload(data.item_weights(index).astype(np.float32), self.device)
                loss = self._step(fit, self._losses(images(index), rng, weights, dropout), len(index))
                fit.watch(loss, n_images, every=every)
                if progress is not None:
                    progress(fit.n_seen, n_images)
                checkpoints.after_step(len(index))
        self._graphs = None

    def _step(self, fit: Fit, losses: Iterator[Tensor], n: int) -> Tensor:
        """A step of all processes down the gradient of a batch of ``n`` images; its loss."""
        fit.flat.grad.zero_()
        loss = torch.zeros((), device=self.device)
        for part in losses:
            if part.requires_grad:
                part.backward()
            loss += part.detach()
        self.team.add(fit.flat.grad)
        fit.step(n)
        return self.team.add(loss)

    def _images(self, data: TrainingSet) -> Callable[[np.ndarray], Tensor]:
        """Index (B,) to uint8 images (B, H, W, C); on a GPU all of them lie there."""
        if not self._on_gpu:
            return lambda index: torch.from_numpy(data[index])
        items = upload(data.array(), self.device)
        return lambda index: items[upload(index, self.device)]

    def _loss(self, images: Tensor, rng: torch.Generator, weights: Tensor | None = None) -> Tensor:
        """The sum of `_losses`."""
        return sum(self._losses(images, rng, weights))

    def _losses(
        self, images: Tensor, rng: torch.Generator, weights: Tensor | None = None, dropout: int | None = None
    ) -> Iterator[Tensor]:
        """This process's share of the loss of one batch, uint8 (B, H, W, C), with fresh noise levels and noise: what
        each piece adds to it, to be propagated back before the next is asked for; graphs have done so themselves.

        The loss is the mean of the terms, each times the weight (B,) of its image, 1 if there are none: not divided by
        the weights in the batch, so its expectation over batches is the weighted loss of the whole set.
        Every process draws the numbers of the whole batch, those of dropout from the seed ``dropout`` if there is one.
        """
        x = to_unit(images).permute(0, 3, 1, 2)  # NHWC memory: channels_last already
        n, labels = len(x), None
        if self.config.augment_probability:
            x, labels = augment(x, rng, self.config.augment_probability, looks=not self._on_gpu)
        level_noise = torch.randn(n, device=self.device, generator=rng)
        noise = self.process.couple_noise(x[None], torch.empty_like(x).normal_(generator=rng)[None])[0]
        split = n >= self.team.size  # a rest smaller than the team is everybody's
        for rows in pieces(self.team.shard(n) if split else slice(0, n), self._piece):
            share = (rows.stop - rows.start) / n if split else (rows.stop - rows.start) / n / self.team.size
            work = partial(self._piece_loss, n, rows, share, dropout is not None)
            numbers = [None if one is None else one[rows] for one in (x, level_noise, noise, labels, weights)]
            if self._graphs is not None and n == self.config.batch_size:
                work = self._graphs.of_gradients(rows.start, work, numbers, self._flat.grad)
            if dropout is not None:
                reseed(dropout, self.device)
            yield work(*numbers)

    def _piece_loss(self, n: int, rows: slice, share: float, drops: bool, *numbers: Tensor | None) -> Tensor:
        """What the images ``rows`` of a batch of ``n``, a ``share`` of it, add to its loss.

        drops: whether they have dropout, whose seed is set. numbers: of these images, as in `_losses`, (B, ...).
        """
        x, level_noise, noise, labels, weights = numbers
        net = self._net(whole=len(x) == self._largest_piece())
        net = net if labels is None else with_augment_labels(net, labels)
        # torch's own dropout is the same on the whole batch on a CPU, and faster; on a GPU it has other masks
        plain = not drops or self.config.compile or (self.device.type == "cpu" and rows == slice(0, n))
        with nullcontext() if plain else DropoutByIndex(n, rows):
            terms = self.process.loss_terms(net, x, level_noise, noise)
        if weights is not None:
            terms = wide(weights, terms) * terms
        return terms.mean() * share

    def _largest_piece(self) -> int:
        """How many images of a whole batch this process takes through the network at once."""
        mine = self.team.shard(self.config.batch_size)
        return min(self._piece or self.config.batch_size, mine.stop - mine.start)

    @torch.inference_mode()
    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """``n`` images, uint8 (n, H, W, C); image i is made from the noise of ``(seed, i)``, whatever the batches."""
        network, batch = self.config.network, self.config.sampling_batch_size
        self.net.eval()
        graphs = Graphs(self.device) if self._replays else None
        images = np.zeros((n, network.resolution, network.resolution, network.colours), dtype=np.uint8)
        for start in range(self.team.rank * batch, n, self.team.size * batch):
            rows = range(start, min(n, start + batch))
            net = self._net(whole=len(rows) == batch)
            net = graphs.of_net(net) if graphs is not None and len(rows) == batch else net
            x = self.process.sample(net, partial(self._noise, seed, rows))
            images[start : rows.stop] = to_uint8(x.permute(0, 2, 3, 1).cpu().numpy())
        return images if self.team.size == 1 else self.team.add(torch.from_numpy(images).to(self.device)).cpu().numpy()

    def _noise(self, seed: int, rows: range, k: int) -> Tensor:
        """Noise number ``k`` of the images ``rows``, (B, C, H, W)."""
        network = self.config.network
        shape = (network.resolution, network.resolution, network.colours)
        noise = noise_by_index(stage_seed(seed, k, "step") if k else seed, rows, shape)
        return torch.from_numpy(noise).to(self.device).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def log_prob(self, images: np.ndarray) -> np.ndarray:
        """Log densities in nats of pixels in [-1, 1] at uint8 images (N, H, W, C), float64 (N,).

        Raises ValueError for a process without an exact density.
        """
        if not hasattr(self.process, "log_prob"):
            raise ValueError(f"{type(self.process).__name__} has no exact density; spline_flow has one")
        self.net.eval()
        batches = np.array_split(to_unit(images), range(0, len(images), self.config.sampling_batch_size)[1:])
        x = (torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2) for batch in batches)
        return torch.cat([self.process.log_prob(self.net, one).double() for one in x]).cpu().numpy()

    @torch.inference_mode()
    def loss(self, images: np.ndarray, *, seed: int, n_noises: int = 1) -> dict[str, float]:
        """The mean loss of the weights on uint8 images (N, H, W, C), each under ``n_noises`` noises and noise levels.

        "loss": that of training without augmentation or dropout. "bits": bits a dimension, where the loss is a
        likelihood. Images and noises alike, and so differences between weights have little noise of their own.
        """
        self.net.eval()
        rng, total = torch.Generator().manual_seed(seed), 0.0
        for batch in np.array_split(images, range(0, len(images), self.config.sampling_batch_size)[1:]):
            x = to_unit(torch.from_numpy(np.array(batch)).to(self.device)).permute(0, 3, 1, 2)
            for _ in range(n_noises):
                level_noise = torch.randn(len(x), generator=rng).to(self.device)
                noise = torch.empty(x.shape).normal_(generator=rng).to(self.device)
                noise = self.process.couple_noise(x[None], noise[None])[0]
                terms = self.process.loss_terms(self._net(whole=False), x, level_noise, noise)
                total += terms.double().mean().item() * len(x)
        found = {"loss": total / (n_noises * len(images))}
        bits = getattr(self.process, "bits_per_dimension", None)
        return found if bits is None else found | {"bits": bits(found["loss"])}

    def state_bytes(self, item_shape: tuple[int, ...]) -> int:
        """The size of `state_dict`; the weights are not made where the network can do without."""
        with torch.device("cpu" if getattr(self.config.network, "eager", False) else "meta"), torch_seed(0):
            weights = sum(t.numel() * t.element_size() for t in self.config.network.build().state_dict().values())
        return weights * (1 + 2 * self.config.keep_optimizer + (self.config.next_start == "raw"))

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights (the EMA of the last fit) by name, float32 arrays on the CPU, and what the next fit is handed."""
        weights = {name: tensor.cpu().numpy().copy() for name, tensor in self.net.state_dict().items()}
        return weights | {f"{CARRIED}{name}": array for name, array in self._carried.items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state_dict`. Raises ValueError if names or shapes are not those of this network."""
        if self.net is None:
            self._new_network(0)
        carried = {name.removeprefix(CARRIED): np.array(a) for name, a in state.items() if name.startswith(CARRIED)}
        weights = {name: np.array(a) for name, a in state.items() if not name.startswith(CARRIED)}
        wanted = {name: tuple(tensor.shape) for name, tensor in self.net.state_dict().items()}
        given = {name: array.shape for name, array in weights.items()}
        if wanted != given:
            differing = sorted(name for name in wanted | given if wanted.get(name) != given.get(name))
            raise ValueError(
                f"the weights are of another network: {len(differing)} names or shapes differ, "
                f"{differing[0]!r} first: wanted {wanted.get(differing[0])}, got {given.get(differing[0])}"
            )
        self.net.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self._carried = carried
