"""Random numbers that are the same on every machine and in every version of NumPy.

NumPy promises that the raw 64-bit words of a bit generator never change; it does not promise that
for what its `Generator` makes of them. Here the words become numbers by arithmetic that rounds
alike on every processor.
"""

import numpy as np
from jaxtyping import Float32, UInt64

Grid = Float32[np.ndarray, "h w"]


class Stream:
    """An endless sequence of random numbers, decided by `key` alone.

    Args:
        key: Whole numbers, 0 or more; streams with different keys are unrelated.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def fractions(self, count: int) -> list[float]:
        """`count` numbers, uniform in [0, 1)."""
        return ((self._words(count) >> np.uint64(11)) * 2.0**-53).tolist()

    def between(self, low: float, high: float) -> float:
        """One number, uniform in [low, high)."""
        return low + (high - low) * self.fractions(1)[0]

    def below(self, limit: int) -> int:
        """One whole number, uniform in 0..limit - 1."""
        return int(self.fractions(1)[0] * limit)

    def grid(self, height: int, width: int) -> Grid:
        """Independent numbers, uniform in [0, 1), with 24 bits each."""
        words = self._words((height * width + 1) // 2).view(np.uint32)[: height * width]
        fractions = (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        return fractions.reshape(height, width)

    def noise(self, *shape: int) -> Float32[np.ndarray, "..."]:
        """Independent numbers of mean 0 and standard deviation 1, nearly normal.

        Each is the sum of four random bytes, centred and scaled; none is beyond 3.5.
        """
        size = int(np.prod(shape))
        octets = self._words((size + 1) // 2).view(np.uint8)[: 4 * size].reshape(size, 4)
        total = octets[:, 0].astype(np.int16)
        for column in range(1, 4):
            total += octets[:, column]
        deviation = ((256.0**2 - 1) / 3) ** 0.5
        centred = (total - np.int16(510)).astype(np.float32)
        return (centred * np.float32(1 / deviation)).reshape(shape)

    def _words(self, count: int) -> UInt64[np.ndarray, " {count}"]:
        # Little-endian bytes on every machine, so that the views above agree.
        return self._bits.random_raw(count).astype("<u8", copy=False)
