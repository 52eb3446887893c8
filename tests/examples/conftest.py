"""What the tests of the lessons share."""

from lessons import found as found
