"""How texts become numbers: words for the small networks, an encoder's own tokens and adapters for transformers."""
