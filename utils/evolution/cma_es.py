"""CMA-ES over the controller's weights, resumable to the bit from plain arrays, without pickle.

The `cma` package does the mathematics. It offers only pickle for saving, so this module names the
few numbers one generation hands to the next, and draws its random numbers from (seed, generation):
there is no generator to save, `ask` is a function of the state alone, and nothing that others do
to numpy's global generator matters.

Its variants were chosen on noisy test functions of 867 dimensions, in 75-300 generations of 32-64:
one variance a coordinate   so few generations teach a full covariance nothing, at 15 times the cost
two-point sigma             recovers sooner than path length control from a sigma far off
mirrored candidates         pairs mean + d and mean - d show the slope through more noise
mean_rate                   on quadratic hills half-steps with a wider sigma average noise out; on
                            the track wide candidates are wrecks, which show nothing, and the mean
                            gets on by longer steps than those that lead to its candidates
"""

from collections.abc import Mapping

import cma  # type: ignore[import-untyped]  # it comes without types
import numpy as np
from cma.sigma_adaptation import CMAAdaptSigmaTPA  # type: ignore[import-untyped]
from cma.transformations import DiagonalDecoding  # type: ignore[import-untyped]
from cma.utilities.utils import ElapsedWCTime  # type: ignore[import-untyped]
from numpy.typing import ArrayLike, NDArray

HIGHEST_RATE = 10  # of the mean; 4 is the highest that has been tried
SMALLEST_POPULATION = 6  # cma selects differently below, and two of them only measure sigma
INTEGERS = ("population", "seed", "generation")
VECTORS = ("mean", "mean_before", "path", "sigma_path", "deviations")
STATE = (*INTEGERS, "sigma", "step", *VECTORS)


class _TwoPoint(CMAAdaptSigmaTPA):  # type: ignore[misc]  # of a package without types
    """Adapts sigma by whether a longer or a shorter last step of the mean would have been fitter.

    Bit-equal to cma's own, less its self-check, which draws from numpy's global generator.
    """

    def check_consistency(self, es: cma.CMAEvolutionStrategy) -> None:
        """`Evolution.tell` has already made sure that the candidates are the ones asked for."""


class Evolution:
    """A normal distribution that moves towards the fittest candidates.

    mean        (n,) where the search starts, n >= 2
    sigma       first standard deviation of every coordinate
    population  candidates a generation
    seed        integer >= 0; the same seed and fitness give the same run, seed 0 too

    It never stops by itself, has no bounds, prints nothing and writes no files.
    Raises ValueError where an argument is out of range.
    """

    def __init__(self, mean: ArrayLike, sigma: float, population: int, seed: int) -> None:
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
        self._asked: NDArray[np.float64] | None = None
        self._es = cma.CMAEvolutionStrategy(
            mean,
            float(sigma),
            {
                "popsize": self.population,
                "CMA_diagonal": True,
                "AdaptSigma": _TwoPoint,
                "randn": self._normal,
                "seed": np.nan,  # leave numpy's global generator alone
                "conditioncov_alleviate": False,  # would move part of the state into a linear map
                "verbose": -9,
            },
        )
        self._es.sigma0 = np.inf  # cma rescales itself where sigma exceeds 1e9 * sigma0: never
        self._es.adapt_sigma.initialize_base(self._es)  # otherwise left until the first tell

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n,) the centre of the distribution, a copy."""
        return self._es.mean.copy()

    @property
    def sigma(self) -> float:
        """The overall standard deviation, which the learned variances shape."""
        return float(self._es.sigma)

    @property
    def generation(self) -> int:
        """How many generations have been told."""
        return self._es.countiter

    def ask(self, least_sigma: float = 0.0, most_sigma: float = np.inf) -> NDArray[np.float64]:
        """(population, n) candidates of this generation, the same ones until `tell`.

        The first to ask may limit the sigma with which they are drawn. Where the scale of a
        candidate's numbers hardly matters there must be an upper limit: noise and growth then look
        alike, and sigma rises until no candidate resembles the mean any more. Where candidates
        differ by less than luck does there must be a lower one.

        Raises FloatingPointError once the search has shrunk or grown beyond what float64 can hold.
        """
        if self._asked is None:
            self._es.sigma = float(min(max(self.sigma, least_sigma), most_sigma))
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

    def draw(self, rng: np.random.Generator, most_sigma: float = np.inf) -> NDArray[np.float64]:
        """(n,) a draw from the distribution that is no candidate: nothing is told of it."""
        scale = min(self.sigma, most_sigma) * self._es.sigma_vec.scaling
        return self.mean + scale * rng.standard_normal(len(self._es.mean))

    @property
    def pairs(self) -> NDArray[np.int64]:
        """(population / 2, 2) which candidates of this generation are each other's mirror image.

        From the second generation on, the first two measure sigma, along the mean's last step.
        Raises ValueError where one would be left without a partner.
        """
        if self.population % 2:
            raise ValueError("only an even number of candidates comes in pairs")
        measure_sigma = 2 if self.generation > 0 else 0
        first = np.arange(measure_sigma, (measure_sigma + self.population) // 2)
        pairs = np.stack([first, first + len(first)], 1)
        return np.concatenate([np.arange(measure_sigma).reshape(-1, 2), pairs])

    def resized(self, population: int) -> "Evolution":
        """The same distribution from which the next generation draws so many candidates."""
        return Evolution.from_state(self.state() | {"population": np.array(population)})

    def tell(self, candidates: ArrayLike, fitness: ArrayLike, mean_rate: float = 1.0) -> None:
        """Move on to the next generation.

        candidates  (population, n) as `ask` gave them
        fitness     (population,) higher is better; only the order matters, and ties are allowed
        mean_rate   how many times the proposed step the mean takes (c_m in Hansen's tutorial,
                    arXiv:1604.00772), above 0 and at most HIGHEST_RATE
        Raises ValueError for other candidates and for a fitness that is NaN or infinite: a failed
        evaluation is the caller's to repeat or to price, since ranking it would hide it.
        """
        if not 0 < mean_rate <= HIGHEST_RATE:
            raise ValueError(
                f"mean_rate must be above 0 and at most {HIGHEST_RATE}, not {mean_rate}"
            )
        fitness = np.asarray(fitness, dtype=np.float64)
        if fitness.shape != (self.population,):
            raise ValueError(f"fitness has shape {fitness.shape}, not ({self.population},)")
        if not np.isfinite(fitness).all():
            raise ValueError(f"fitness must be finite, not {fitness[~np.isfinite(fitness)][0]}")
        asked = self.ask()
        if not np.array_equal(candidates, asked):
            raise ValueError(
                "the candidates told are not the ones asked for in generation "
                f"{self.generation}; pass them back in float64 and in order"
            )
        self._es.sp.cmean = float(mean_rate)
        self._es.tell(list(asked), list(-fitness))  # cma minimises
        self._asked = None

    def state(self) -> dict[str, NDArray]:
        """All that `from_state` needs, as copies; n = 867 takes 35 kB.

        Candidates asked for but not yet told are not part of it: the restored run asks for them
        again and gets the same ones.
        """
        es = self._es
        state = {
            "population": self.population,
            "seed": self.seed,
            "generation": self.generation,
            "mean": es.mean,
            "mean_before": es.mean if self.generation == 0 else es.mean_old,
            "sigma": self.sigma,
            "step": float(es.adapt_sigma.s),  # smoothed verdict of the two-point test
            "sigma_path": es.adapt_sigma.ps,  # tells when the variances should wait for sigma
            "path": es.pc,  # smoothed steps of the mean, for the variances
            "deviations": np.broadcast_to(es.sigma_vec.scaling, es.mean.shape),
        }
        return {name: np.array(value) for name, value in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, ArrayLike]) -> "Evolution":
        """The evolution that `state` was taken from; raises ValueError where it is malformed."""
        state = _checked(state)
        sigma, population = float(state["sigma"]), int(state["population"])
        self = cls(state["mean"], sigma, population, int(state["seed"]))
        es = self._es
        es.countiter = int(state["generation"])
        es.timer = ElapsedWCTime()  # cma makes its own only in generation 0
        es.pc = state["path"]
        es.adapt_sigma.ps = state["sigma_path"]
        es.adapt_sigma.s = float(state["step"])
        es.sigma_vec = DiagonalDecoding(state["deviations"])
        if self.generation > 0:
            es.mean_old = state["mean_before"]
            es._prepare_injection_directions()  # the two candidates along the mean's last step
        return self

    def _normal(self, rows: int, n: int) -> NDArray[np.float64]:
        """(rows, n) standard normal numbers, the second half minus the first."""
        half = self._rng.standard_normal(((rows + 1) // 2, n))
        return np.concatenate([half, -half])[:rows]


def _checked(state: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    """Fresh arrays from `state`, once names, types, shapes and signs are right; else ValueError."""
    checked = {name: np.array(state.get(name), order="C") for name in STATE}
    for name, value in checked.items():
        shape = checked["mean"].shape[:1] if name in VECTORS else ()
        dtype = np.int64 if name in INTEGERS else np.float64
        if value.dtype != dtype or value.shape != shape or not np.isfinite(value).all():
            wanted = f"finite {np.dtype(dtype)} of shape {shape}"
            raise ValueError(f"malformed state of an evolution: {name} must be {wanted}")
    if checked["generation"] < 0:
        raise ValueError("malformed state of an evolution: generation is negative")
    if not (checked["deviations"] > 0).all():
        raise ValueError("malformed state of an evolution: deviations must be positive")
    return checked
