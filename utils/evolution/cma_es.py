"""CMA-ES over the controller's weights, resumable to the bit from plain arrays, without pickle.

The `cma` package does the mathematics. It offers only pickle for saving, so this module names the
few numbers one generation hands to the next, and draws its random numbers from (seed, generation):
there is no generator to save, `ask` is a function of the state alone, and nothing that others do
to numpy's global generator matters.

The defaults come from noisy test hills of 867 dimensions, 75-300 generations of 32-64 candidates:
diagonal=True     so few generations teach a full covariance nothing, and it costs 16 times as much;
two-point sigma   it recovers sooner than path length control from a sigma far too small or large;
mirrored=True     candidates in pairs mean + d and mean - d show the slope through more noise;
mean_rate=0.5     half-steps of the mean, with a wider sigma to match, average noise out. 0.25 was
                  better still on quadratic hills, but lost its way on hills that flatten out.
"""

from collections.abc import Mapping

import cma
import numpy as np
from cma.sigma_adaptation import CMAAdaptSigmaTPA
from cma.transformations import DiagonalDecoding
from cma.utilities.utils import ElapsedWCTime
from numpy.typing import ArrayLike, NDArray

SMALLEST_POPULATION = 6  # cma selects differently below, and two of them only measure sigma
SCALARS = {
    "population": np.int64,
    "seed": np.int64,
    "generation": np.int64,
    "sigma": np.float64,
    "step": np.float64,
    "mean_rate": np.float64,
    "diagonal": np.bool_,
    "mirrored": np.bool_,
}
VECTORS = ("mean", "mean_before", "path", "sigma_path")


class _TwoPoint(CMAAdaptSigmaTPA):
    """Adapts sigma by whether a longer or a shorter last step of the mean would have scored better.

    Bit-equal to cma's own, less its self-check, which draws from numpy's global generator.
    """

    def check_consistency(self, es: cma.CMAEvolutionStrategy) -> None:
        """`Evolution.tell` has already made sure that the candidates are the ones asked for."""


class Evolution:
    """A normal distribution that moves towards the candidates with the highest scores.

    mean        (n,) where the search starts, n >= 2
    sigma       first standard deviation of every coordinate
    population  candidates a generation
    seed        integer >= 0; the same seed and scores give the same run, seed 0 too
    diagonal    learn one variance a coordinate, O(n); False learns all n x n covariances
    mean_rate   share of the proposed step that the mean takes, above 0 and at most 1
    mirrored    draw the candidates in pairs opposite each other

    It never stops by itself, has no bounds, prints nothing and writes no files.
    Raises ValueError where an argument is out of range.
    """

    def __init__(
        self,
        mean: ArrayLike,
        sigma: float,
        population: int,
        seed: int,
        *,
        diagonal: bool = True,
        mean_rate: float = 0.5,
        mirrored: bool = True,
    ) -> None:
        mean = np.array(mean, dtype=np.float64)
        if mean.ndim != 1 or len(mean) < 2 or not np.isfinite(mean).all():
            raise ValueError("mean must be a vector of at least two finite numbers")
        if not 0 < sigma < np.inf:
            raise ValueError(f"sigma must be positive and finite, not {sigma}")
        if population < SMALLEST_POPULATION:
            raise ValueError(f"population must be at least {SMALLEST_POPULATION}, not {population}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, not {seed}")
        self.population, self.seed = int(population), int(seed)
        self.diagonal, self.mirrored = bool(diagonal), bool(mirrored)
        self._asked: NDArray[np.float64] | None = None
        self._es = cma.CMAEvolutionStrategy(
            mean,
            float(sigma),
            {
                "popsize": self.population,
                "CMA_diagonal": self.diagonal,
                "AdaptSigma": _TwoPoint,
                "randn": self._normal,
                "seed": np.nan,  # leave numpy's global generator alone
                "conditioncov_alleviate": False,  # would move part of the state into a linear map
                "verbose": -9,
            },
        )
        self._es.sigma0 = np.inf  # cma rescales itself where sigma exceeds 1e9 * sigma0: never
        self._es.adapt_sigma.initialize_base(self._es)  # otherwise left until the first tell
        self.mean_rate = mean_rate

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n,) the centre of the distribution, a copy."""
        return self._es.mean.copy()

    @property
    def sigma(self) -> float:
        """The overall standard deviation, which the learned covariance shapes."""
        return float(self._es.sigma)

    @property
    def mean_rate(self) -> float:
        """Share of the proposed step that the mean takes; may change from one `tell` to the next.

        Setting it raises ValueError where it is not above 0 and at most 1.
        """
        return float(self._es.sp.cmean)

    @mean_rate.setter
    def mean_rate(self, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"mean_rate must be above 0 and at most 1, not {share}")
        self._es.sp.cmean = float(share)

    def limit_sigma(self, least: float, most: float) -> None:
        """Bring sigma to between `least` and `most`; the next candidates are drawn with that.

        A search whose scores hardly depend on the scale of its numbers needs an upper limit: noise
        and growth then look alike, and sigma rises until no candidate resembles the mean any more.
        One whose candidates differ by less than luck does needs a lower limit.
        Raises ValueError where `ask` has drawn this generation's candidates with another one.
        """
        if least <= self.sigma <= most:
            return
        if self._asked is not None:
            raise ValueError(f"the candidates of generation {self.generation} are drawn already")
        self._es.sigma = float(min(max(self.sigma, least), most))

    @property
    def generation(self) -> int:
        """How many generations have been told."""
        return self._es.countiter

    def ask(self) -> NDArray[np.float64]:
        """(population, n) candidates of this generation, the same ones until `tell`.

        Raises FloatingPointError once the search has shrunk or grown beyond what float64 can hold.
        """
        if self._asked is None:
            self._rng = np.random.default_rng([self.seed, self.generation])
            with np.errstate(all="ignore"):
                asked = np.array(self._es.ask())
            if not np.isfinite(asked).all():
                raise FloatingPointError(
                    f"the search ended in generation {self.generation}: with "
                    f"sigma {self.sigma:.3g} float64 can step no further"
                )
            self._asked = asked
        return self._asked.copy()

    @property
    def pairs(self) -> NDArray[np.int64]:
        """(population / 2, 2) which candidates of this generation are each other's mirror image.

        From the second generation on, the first two measure sigma, along the mean's last step.
        Raises ValueError where candidates are not mirrored, or one would be left without a partner.
        """
        if not self.mirrored or self.population % 2:
            raise ValueError("only an even number of mirrored candidates comes in pairs")
        measure_sigma = 2 if self.generation > 0 else 0
        first = np.arange(measure_sigma, (measure_sigma + self.population) // 2)
        pairs = np.stack([first, first + len(first)], 1)
        return np.concatenate([np.arange(measure_sigma).reshape(-1, 2), pairs])

    def resized(self, population: int) -> "Evolution":
        """The same distribution from which the next generation draws so many candidates."""
        return Evolution.from_state(self.state() | {"population": np.array(population)})

    def tell(self, candidates: ArrayLike, scores: ArrayLike) -> None:
        """Move on to the next generation.

        candidates  (population, n) as `ask` gave them
        scores      (population,) higher is better; only their order matters, and ties are allowed
        Raises ValueError for other candidates and for a score that is NaN or infinite: a failed
        evaluation is the caller's to repeat or to price, since ranking it would hide it.
        """
        scores = np.asarray(scores, dtype=np.float64)
        if scores.shape != (self.population,):
            raise ValueError(f"scores have shape {scores.shape}, not ({self.population},)")
        if not np.isfinite(scores).all():
            raise ValueError(f"scores must be finite, not {scores[~np.isfinite(scores)][0]}")
        asked = self.ask()
        if not np.array_equal(candidates, asked):
            raise ValueError(
                "the candidates told are not the ones asked for in generation "
                f"{self.generation}; pass them back in float64 and in order"
            )
        self._es.tell(list(asked), list(-scores))  # cma minimises
        self._asked = None

    def state(self) -> dict[str, NDArray]:
        """All that `from_state` needs, as copies; n = 867 takes 12 MB, or 35 kB if diagonal.

        Candidates asked for but not yet told are not part of it: the restored run asks for them
        again and gets the same ones.
        """
        es = self._es
        state = {
            "population": self.population,
            "seed": self.seed,
            "generation": self.generation,
            "diagonal": self.diagonal,
            "mean_rate": self.mean_rate,
            "mirrored": self.mirrored,
            "mean": es.mean,
            "mean_before": es.mean if self.generation == 0 else es.mean_old,
            "sigma": self.sigma,
            "step": float(es.adapt_sigma.s),  # smoothed verdict of the two-point test
            "sigma_path": es.adapt_sigma.ps,  # tells when the covariance should wait for sigma
            "path": es.pc,  # smoothed steps of the mean, for the covariance
        }
        if self.diagonal:
            state["deviations"] = np.broadcast_to(es.sigma_vec.scaling, es.mean.shape)
        else:  # the eigenvectors lag behind the covariance, which is decomposed only now and then
            state |= {
                "covariance": es.sm.C,
                "axes": es.sm.B,
                "lengths": es.sm.D,
                "decomposed": es.sm.last_update,
            }
        return {name: np.array(value) for name, value in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, ArrayLike]) -> "Evolution":
        """The evolution that `state` was taken from; raises ValueError where it is malformed."""
        state = _checked(state)
        self = cls(
            state["mean"],
            state["sigma"],
            state["population"],
            state["seed"],
            diagonal=state["diagonal"],
            mean_rate=state["mean_rate"],
            mirrored=state["mirrored"],
        )
        es = self._es
        es.countiter = int(state["generation"])
        es.timer = ElapsedWCTime()  # cma makes its own only in generation 0
        es.pc = state["path"]
        es.adapt_sigma.ps = state["sigma_path"]
        es.adapt_sigma.s = float(state["step"])
        if self.diagonal:
            es.sigma_vec = DiagonalDecoding(state["deviations"])
        else:
            es.sm.C, es.sm.D = state["covariance"], state["lengths"]
            es.sm.B = np.asfortranarray(state["axes"])  # as cma lays it out: order changes rounding
            es.sm.count_tell, es.sm.last_update = es.countiter, int(state["decomposed"])
        if self.generation > 0:
            es.mean_old = state["mean_before"]
            es._prepare_injection_directions()  # the two candidates along the mean's last step
        return self

    def _normal(self, rows: int, n: int) -> NDArray[np.float64]:
        """(rows, n) standard normal numbers; if mirrored, the second half is minus the first."""
        if not self.mirrored:
            return self._rng.standard_normal((rows, n))
        half = self._rng.standard_normal(((rows + 1) // 2, n))
        return np.concatenate([half, -half])[:rows]


def _checked(state: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    """Fresh arrays from `state`, once names, types, shapes and signs are right; else ValueError."""

    def need(holds: bool, sentence: str) -> None:
        if not holds:
            raise ValueError(f"malformed state of an evolution: {sentence}")

    def take(name: str, shape: tuple[int, ...], dtype: type = np.float64) -> NDArray:
        need(name in state, f"{name} is missing")
        value = np.array(state[name], order="C")
        need(value.dtype == dtype, f"{name} has type {value.dtype}, not {np.dtype(dtype)}")
        need(value.shape == shape, f"{name} has shape {value.shape}, not {shape}")
        need(bool(np.isfinite(value).all()), f"{name} holds a number that is not finite")
        return value

    checked = {name: take(name, (), dtype) for name, dtype in SCALARS.items()}
    need(checked["generation"] >= 0, "generation is negative")
    shape = np.shape(state.get("mean", ()))
    need(len(shape) == 1, f"mean has shape {shape}, which is not a vector")
    checked |= {name: take(name, shape) for name in VECTORS}
    positive = {"sigma": checked["sigma"]}
    if checked["diagonal"]:
        positive["deviations"] = take("deviations", shape)
    else:
        checked |= {name: take(name, shape * 2) for name in ("covariance", "axes")}
        checked["decomposed"] = take("decomposed", (), np.int64)
        need(
            0 <= checked["decomposed"] <= checked["generation"],
            "decomposed is not one of the generations so far",
        )
        positive["lengths"] = take("lengths", shape)
        positive["diagonal of the covariance"] = np.diag(checked["covariance"])
    for name, value in positive.items():
        need(bool((value > 0).all()), f"{name} is not positive")
    return checked | positive
