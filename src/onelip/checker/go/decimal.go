package main

import (
	"fmt"
	"math/big"
)

// decimal is a number of nine digits that is not below a float64 number x >= 0, or not above it.
func decimal(x *big.Rat, up bool) string {
	f, _ := x.Float64()
	for step := 0.0; step < 1e-7; step += 1e-9 {
		near := f * (1 - step)
		if up {
			near = f * (1 + step)
		}
		s := fmt.Sprintf("%.9g", near)
		shown, ok := new(big.Rat).SetString(s)
		if ok && (up && shown.Cmp(x) >= 0 || !up && shown.Cmp(x) <= 0) {
			return s
		}
	}
	return fmt.Sprintf("%x", f) // exact: a subnormal number, or the largest ones
}
