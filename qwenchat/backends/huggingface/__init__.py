"""Any chat model of the Hub, on transformers: ``load`` is the way in, ``backend`` what answers."""
