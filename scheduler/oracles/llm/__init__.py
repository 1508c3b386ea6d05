"""Language models: asked over any OpenAI-compatible endpoint, checked, paced, and never paid twice for one question."""
