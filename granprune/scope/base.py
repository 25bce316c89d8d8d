"""What a scope is: a split of the components into groups that are ranked separately."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from granprune.masking import MaskedModel
from granprune.pruning import Group, prune

Path = Callable[[float], float]  # final density -> the density that the schedule is at now


class Scope(ABC):
    """Splits the masked layers into groups that are ranked separately."""

    @abstractmethod
    def groups(self, model: MaskedModel, density: float) -> list[Group]:
        """Layer names that compete with each other, and the final density of each group.

        Args:
            model: The masked network.
            density: The density asked for over the whole network.

        Raises:
            UserError: The scope has no meaning for this network or density.
        """

    def groups_now(self, model: MaskedModel, density: float, path: Path) -> list[Group]:
        """The groups with their densities on the way to the final ones.

        Args:
            model: The masked network.
            density: The final density asked for over the whole network.
            path: From a final density to the present one.
        """
        return [(names, path(final)) for names, final in self.groups(model, density)]

    def prune(
        self,
        masks: Mapping[str, Tensor],
        scores: Mapping[str, Tensor],
        groups: Sequence[Group],
        min_components: int = 0,
    ) -> dict[str, Tensor]:
        """Keep the best-scoring components of each group; see `granprune.pruning.prune`."""
        return prune(masks, scores, groups, min_components)
