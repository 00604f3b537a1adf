"""Find the encoder and graph settings that suit a collection."""
