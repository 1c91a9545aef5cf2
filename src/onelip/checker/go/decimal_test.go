package main

import (
	"math"
	"math/big"
	"math/rand"
	"testing"
)

func TestDecimalsAreOnTheirSide(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	numbers := []float64{0, 1, 0.1, 1.0000002237707273, 5e-324, 0x1p-1022, math.MaxFloat64, 123456789, 1e22, 9.999999995}
	for i := 0; i < 10000; i++ {
		numbers = append(numbers, math.Ldexp(r.Float64(), r.Intn(2000)-1000))
	}
	for _, f := range numbers {
		x := new(big.Rat).SetFloat64(f)
		for _, up := range []bool{false, true} {
			s := decimal(x, up)
			shown, _, err := big.ParseFloat(s, 0, 2000, big.ToNearestEven)
			if err != nil {
				t.Fatal(s, err)
			}
			if side := shown.Cmp(new(big.Float).SetRat(x)); up && side < 0 || !up && side > 0 {
				t.Errorf("%v (up: %v) is shown as %s", f, up, s)
			}
			near, _ := shown.Float64()
			if f > 1e-300 && !(math.Abs(near/f-1) < 1e-8) {
				t.Errorf("%v is shown as %s", f, s)
			}
		}
	}
}
