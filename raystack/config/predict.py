"""The predict section: batches and parts of offline prediction."""

from pydantic import PositiveInt

from raystack.config.section import Section


class Predict(Section):
    """Offline prediction, by `raystack predict`. Its workers are those of `resources`."""

    batch: PositiveInt | None = None
    """Maximum number of rows in one forward pass. Not set: `serving.batching.max_size`."""

    part_rows: PositiveInt | None = None
    """Rows of one part: a file of the output, and what is done again if the command is killed. Not set: about
    256 parts, each with 1,000 to 100,000 rows and at most 64 MiB of the input's files.
    """
