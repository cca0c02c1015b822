"""Models of others: Meta's files, timm's tags, Hugging Face's repositories; and back to them."""

from geodino.models.foreign.open import is_foreign, open_foreign

__all__ = ["is_foreign", "open_foreign"]
