package main

import (
	"fmt"
	"math/big"
)

// block is a part of the network with a bound that has been shown.
type block struct {
	bound *big.Rat
	apply func(grid) grid
	plain *neurons // what the block is, if it is nothing else
	bent  *bent    // likewise

	executed func(*level, execution) execution
}

const (
	mostMaps       = 10000
	longestProduct = 1 << 18
)

// readMaps reads maps one after the other, and gives them, what comes out of the last, and the product of their norms.
func (b *bundle) readMaps(v any, input []int, what string) ([]linear, []int, *big.Rat) {
	maps, product := []linear{}, whole(1)
	for i, item := range list(v, what) {
		b.maps++
		spend(1 << 19)
		demand(b.maps <= mostMaps, "more than %d maps", mostMaps)
		b.to.begins(fmt.Sprintf("%s: map %d", what, i), b.maps-1, b.all)
		m, how := b.readMap(item, input, what)
		demand(entries(m.outputs(), what) <= widestLayer, "%s: too many entries", what)
		kind := item.(record)["map"].(string)
		norm, _ := m.claimed().Float64()
		b.say("%s: %s to %s, norm <= %.9g, %s", what, kind, tuple(m.outputs()), norm, how)
		maps, input, product = append(maps, m), m.outputs(), multiply(product, m.claimed())
		demand(product.Denom().BitLen() < longestProduct, "%s: a product of norms is too small", what)
	}
	return maps, input, product
}

// mapsIn is how many maps stand in a record.
func mapsIn(v any) int {
	n := 0
	switch v := v.(type) {
	case record:
		if _, is := v["map"]; is {
			return 1
		}
		for _, item := range v {
			n += mapsIn(item)
		}
	case []any:
		for _, item := range v {
			n += mapsIn(item)
		}
	}
	return n
}

func applied(maps []linear, x grid) grid {
	for _, m := range maps {
		x = m.apply(x)
	}
	return x
}

func (b *bundle) readBlock(v any, input []int, what string) (block, []int) {
	r, ok := v.(record)
	demand(ok, "%s is not an object", what)
	if _, step := r["step"]; step {
		return b.readStep(v, input, what)
	}
	f := fields(v, what, "inner", "activation", "outer", "skip", "bound")
	inner, shape, product := b.readMaps(f["inner"], input, what)
	a := b.readActivation(f["activation"], shape, what)
	outer, shape, product2 := b.readMaps(f["outer"], a.outputs, what)
	product = multiply(product, product2)
	bound := claim(f["bound"], what)
	room := bound
	var skip []linear
	if f["skip"] != nil {
		maps, same, norms := b.readMaps(f["skip"], input, what)
		demand(tuple(same) == tuple(shape), "%s: the skip connection has another shape", what)
		skip, room = maps, new(big.Rat).Sub(bound, norms)
	}
	demand(room.Sign() >= 0 && atLeast(multiply(room, room), multiply(a.square, multiply(product, product))), "%s: the bound is below what its parts give", what)
	apply := func(x grid) grid {
		y := applied(outer, a.apply(applied(inner, x)))
		if f["skip"] != nil {
			y = together(y, applied(skip, x))
		}
		return y
	}
	executed := func(l *level, x execution) execution {
		y := l.chain(outer, l.activated(a, l.chain(inner, x)))
		if f["skip"] != nil {
			y = l.together(y, l.chain(skip, x))
		}
		return y
	}
	part := block{bound: bound, apply: apply, executed: executed}
	if len(inner) == 1 && len(outer) == 0 && f["skip"] == nil {
		part.plain, part.bent = plain(inner[0], a), bentBlock(inner[0], a)
	}
	return part, shape
}

// reversible is a map that step blocks know the adjoint of.
type reversible interface {
	linear
	transposed(grid) grid
	ways() (forward, back *sums)
}

func (b *bundle) readStep(v any, input []int, what string) (block, []int) {
	f := fields(v, what, "inner", "activation", "step", "bound")
	maps, shape, _ := b.readMaps(f["inner"], input, what)
	demand(len(maps) == 1, "%s: not one map", what)
	m, ok := maps[0].(reversible)
	demand(ok, "%s: neither a matrix nor a convolution", what)
	if c, image := m.(*convolved); image {
		demand(c.c.stride == [2]int{1, 1} && c.c.groups == 1 && c.c.from[1] == c.c.to[1] && c.c.from[2] == c.c.to[2],
			"%s: a convolution that does not keep the size of images", what)
	}
	a := b.readActivation(f["activation"], shape, what)
	demand(tuple(a.outputs) == tuple(shape), "%s: the activation gives another shape", what)
	low, high := a.slopes()
	step, bound := claim(f["step"], what), claim(f["bound"], what)
	b.demandNumber(step, what)
	size := multiply(step, multiply(m.claimed(), m.claimed()))
	least := larger(whole(1), new(big.Rat).Sub(multiply(size, high), whole(1)))
	least = larger(least, new(big.Rat).Sub(whole(1), multiply(size, smaller(low, new(big.Rat)))))
	demand(atLeast(bound, least), "%s: the bound is below what its parts give", what)
	length, e := dyadic(new(big.Rat).Neg(step))
	factor := grid{[]int64{length}, e, nothing()}
	apply := func(x grid) grid {
		start := grid{x.m, x.e, nothing()}
		back := m.transposed(a.apply(m.apply(start)))
		moved := scaledBy(back, factor, make([]int32, len(back.m)))
		moved.off = moved.off.plus(above(step).times(back.off))
		y := together(start, moved)
		y.off = y.off.plus(above(bound).times(x.off))
		return y
	}
	executed := func(l *level, x execution) execution { return l.stepped(m, a, step, bound, x) }
	return block{bound: bound, apply: apply, executed: executed}, input
}

// dyadic is a float64 number as m 2^e with m below 2^53 in absolute value.
func dyadic(a *big.Rat) (int64, int) {
	m := new(big.Int).Set(a.Num())
	e := 1 - a.Denom().BitLen()
	for m.Sign() != 0 && m.Bit(0) == 0 {
		zeros := int(m.TrailingZeroBits())
		m.Rsh(m, uint(zeros)) // exact: the shifted bits are zeros
		e += zeros
	}
	return m.Int64(), e
}

// readNetwork shows all that is claimed of the network, whose bound is at least the product of its parts, or shown by a method.
func (b *bundle) readNetwork(v any) {
	f := fields(v, "the network", "blocks", "last", "method")
	shape := b.input
	b.product = whole(1)
	for i, item := range list(f["blocks"], "the blocks") {
		what := fmt.Sprintf("block %d", i)
		demand(i < mostMaps, "more than %d blocks", mostMaps)
		part, out := b.readBlock(item, shape, what)
		bound, _ := part.bound.Float64()
		b.say("%s: constant <= %.9g", what, bound)
		b.blocks, shape = append(b.blocks, part), out
		b.product = multiply(b.product, part.bound)
		demand(b.product.Denom().BitLen() < longestProduct, "a product of bounds is too small")
	}
	b.beforeLast = b.product
	var norms *big.Rat
	b.last, b.output, norms = b.readMaps(f["last"], shape, "last")
	for i, m := range b.last {
		if i < len(b.last)-1 {
			b.beforeLast = multiply(b.beforeLast, m.claimed())
		}
	}
	b.product = multiply(b.product, norms)
	b.method = f["method"]
	demand(b.level == nil || b.method == nil, "the network: a method, which level float does not know")
}

func (b *bundle) apply(x grid) grid {
	for _, part := range b.blocks {
		x = part.apply(x)
	}
	return applied(b.last, x)
}
