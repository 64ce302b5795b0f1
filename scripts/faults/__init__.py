"""What can go wrong around Piqueue, done on purpose: shared by scripts/chaos and the tests."""
