"""The checks of `piqueue doctor`."""
