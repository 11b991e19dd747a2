"""The tests of qwenchat. A package, so that its name is not that of another package's tests."""
