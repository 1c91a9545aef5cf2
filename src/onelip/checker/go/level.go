package main

import (
	"fmt"
	"math"
	"math/big"
)

// format is a format of floating-point numbers: an operation gives its exact result times 1 + d with |d| <= 2^-digits,
// plus at most 2^tiny; lengths below 2^limit are far from overflow.
type format struct {
	name                string
	digits, tiny, limit int
	has                 func(float64) bool // whether a number is one, and not a subnormal one
}

var formats = map[string]*format{
	"float32": {"float32", 24, -124, 100, func(x float64) bool { return x == 0 || math.Abs(x) >= 0x1p-126 && float64(float32(x)) == x }},
	"float64": {"float64", 53, -1020, 1000, func(x float64) bool { return x == 0 || math.Abs(x) >= 0x1p-1022 }},
}

// level is the formats in which executions store numbers and add products.
type level struct{ numbers, sums *format }

// readLevel gives nil for the level real.
func readLevel(v any) *level {
	const what = "the level"
	if name, ok := v.(string); ok {
		demand(name == "real", "%s is neither real nor an object", what)
		return nil
	}
	f := fields(v, what, "kind", "numbers", "sums")
	demand(text(f["kind"], what) == "float", "%s is of an unknown kind", what)
	l := &level{formats[text(f["numbers"], what)], formats[text(f["sums"], what)]}
	demand(l.numbers != nil && l.sums != nil, "%s: an unknown format of numbers", what)
	demand(l.numbers.digits <= l.sums.digits, "%s: sums in a shorter format than numbers", what)
	return l
}

// demandNumber refuses a number that the level's format does not have.
func (b *bundle) demandNumber(x *big.Rat, what string) {
	f, _ := x.Float64()
	demand(b.level == nil || b.level.numbers.has(f), missing, what)
}

const missing = "%s: a number that the level's format does not have, or has as a subnormal one"

// demandNumbers refuses tensors of other floating-point numbers than those of the level's format.
func (b *bundle) demandNumbers() {
	for name, t := range b.tensors {
		n := t.length()
		for i := 0; b.level != nil && t.floating() && i < n; i++ {
			if !b.level.numbers.has(t.double(i)) {
				refuse(missing, fmt.Sprintf("tensor %q", short(name)))
			}
		}
	}
}

// floats is a tensor of floating-point numbers.
func (b *bundle) floats(v any, what string) *tensor {
	t := b.tensor(v, what)
	demand(t.floating(), "%s: a tensor of whole numbers where floating-point ones have to be", what)
	return t
}

// terms are how the network has to run for the claims to be about it.
func (l *level) terms() string {
	if l == nil {
		return "in exact real numbers (level real)"
	}
	return fmt.Sprintf("each operation in %s, sums in %s (level float)", l.numbers.name, l.sums.name)
}
