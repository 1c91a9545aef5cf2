package main

import (
	"math/big"
	"sync"
)

// convolved is a convolution with a proved norm, and a bias or nil.
type convolved struct {
	proved
	c                 *convolution
	bias              *tensor
	byRows, byColumns sync.Once
	rows, cols        raised // kernels per output, and per input and tap
	rowSums, colSums  []wide
	rounded
}

func (b *bundle) readConvolution(v any, input []int, what string) (*convolved, string) {
	c := b.newConvolution(v, input, what)
	how := c.prove(what)
	bias := b.bias(v.(record)["bias"], c.to[0], what)
	r := &convolved{proved: proved{c.norm, c.to[:]}, c: c, bias: bias}
	if b.level != nil {
		r.rounded = r.counted()
	}
	return r, how
}

// plain is a convolution without bias and the shape that it gives.
func (b *bundle) plain(v any, input []int, what string) (*convolved, string) {
	c, how := b.readConvolution(v, input, what)
	demand(c.bias == nil, "%s: a bias where none may be", what)
	return c, how
}

func (v *convolved) apply(x grid) grid { return biased(v.linear(x), v.bias) }

// linear is the map without its bias: at each place all kernels meet the same patch.
func (v *convolved) linear(x grid) grid {
	c := v.c
	patch := c.perGroup() / (c.wide[0] / c.groups)
	spend(patch, c.to[0], c.to[1]*c.to[2])
	v.byRows.Do(func() { v.rows, v.rowSums = raisedRows(c.weight.m, patch) })
	outs, ins, area := c.wide[0]/c.groups, c.wide[1], c.to[1]*c.to[2]
	k, m := c.wide[2], c.wide[3]
	sums := make([]wide, c.to[0]*area)
	lifted := make(raised, patch)
	for g := 0; g < c.groups; g++ {
		for y := 0; y < c.to[1]; y++ {
			for z := 0; z < c.to[2]; z++ {
				var total int64 // below 2^62 for 2^12 numbers; then wide takes over
				var all wide
				for i := 0; i < ins; i++ {
					pixels := x.m[(g*ins+i)*c.from[1]*c.from[2]:]
					for s := 0; s < k; s++ {
						p := int(c.reads[0][y*k+s])
						for t := 0; t < m; t++ {
							q := int(c.reads[1][z*m+t])
							var value int64
							if p >= 0 && q >= 0 {
								value = pixels[p*c.from[2]+q]
							}
							n := (i*k+s)*m + t
							lifted[n] = raise(value)
							total += value
							if n&4095 == 4095 {
								all, total = all.plus(widen(total)), 0
							}
						}
					}
				}
				all = all.plus(widen(total))
				for o := g * outs; o < (g+1)*outs; o++ {
					sums[o*area+y*c.to[2]+z] = lowered(dot(v.rows[o*patch:(o+1)*patch], lifted), patch, v.rowSums[o], all)
				}
			}
		}
	}
	r := settled(sums, x.e+c.weight.e)
	r.off = v.carried(x, r.off, c.off().times(lengthOf(x.m, x.e)))
	return r
}

// transposed is the adjoint: what each place has goes back to where its taps read.
func (v *convolved) transposed(x grid) grid {
	c := v.c
	outs, ins, area := c.wide[0]/c.groups, c.wide[1], c.to[1]*c.to[2]
	k, m := c.wide[2], c.wide[3]
	patch := ins * k * m
	spend(patch, c.to[0], c.to[1]*c.to[2])
	v.byColumns.Do(func() {
		turned := make([]int64, len(c.weight.m))
		for g := 0; g < c.groups; g++ {
			for o := 0; o < outs; o++ {
				for n := 0; n < patch; n++ {
					turned[(g*patch+n)*outs+o] = c.weight.m[(g*outs+o)*patch+n]
				}
			}
		}
		v.cols, v.colSums = raisedRows(turned, outs)
	})
	sums := make([]wide, c.from[0]*c.from[1]*c.from[2])
	column, lifted := make([]int64, outs), make(raised, outs)
	for g := 0; g < c.groups; g++ {
		for y := 0; y < c.to[1]; y++ {
			for z := 0; z < c.to[2]; z++ {
				for o := range column {
					column[o] = x.m[(g*outs+o)*area+y*c.to[2]+z]
					lifted[o] = raise(column[o])
				}
				all := sum(column)
				for n := 0; n < patch; n++ {
					p, q := int(c.reads[0][y*k+n/m%k]), int(c.reads[1][z*m+n%m])
					if p < 0 || q < 0 {
						continue
					}
					row := g*patch + n
					w := lowered(dot(v.cols[row*outs:(row+1)*outs], lifted), outs, v.colSums[row], all)
					to := ((g*ins+n/(k*m))*c.from[1]+p)*c.from[2] + q
					sums[to] = sums[to].plus(w)
				}
			}
		}
	}
	r := settled(sums, x.e+c.weight.e)
	r.off = v.carried(x, r.off, c.off().times(lengthOf(x.m, x.e)))
	return r
}

// adjoint is the adjoint of a convolution, plus one number for each channel.
type adjoint struct {
	proved
	of   *convolved
	bias *tensor
	sums *sums
}

func (b *bundle) readAdjoint(v any, input []int, what string) (*adjoint, string) {
	f := fields(v, what, "map", "norm", "of", "inputs", "bias")
	shape := sizes(f["inputs"], what)
	of, how := b.plain(f["of"], shape, what+", the convolution")
	demand(image(input, what) == of.c.to, "%s: the input is not what the convolution gives", what)
	norm := claim(f["norm"], what)
	demand(atLeast(norm, of.norm), "%s: the norm is below that of its convolution", what)
	a := &adjoint{proved: proved{norm, shape}, of: of, bias: b.bias(f["bias"], shape[0], what)}
	if b.level != nil {
		a.sums = of.back.biased(a.bias)
	}
	return a, "adjoint, " + how
}

func (a *adjoint) apply(x grid) grid { return biased(a.of.transposed(x), a.bias) }

// exponential is a section of the exponential series of a skew convolution.
type exponential struct {
	proved
	of    *convolved
	terms int
}

func (b *bundle) readExponential(v any, input []int, what string) (*exponential, string) {
	f := fields(v, what, "map", "norm", "of", "terms")
	of, how := b.plain(f["of"], input, what+", the convolution")
	norm, terms := claim(f["norm"], what), integer(f["terms"], what, 1, 64)
	of.c.demandSkew(what)
	spend(terms, terms, terms, 1<<9)
	demand(seriesBelow(of.norm, terms, norm), "%s: the series is not shown to be at most the norm", what)
	return &exponential{proved{norm, input}, of, terms}, "series, " + how
}

// demandSkew refuses a convolution that is not the negative of its adjoint.
func (c *convolution) demandSkew(what string) {
	demand(c.stride == [2]int{1, 1} && c.groups == 1 && c.wide[0] == c.wide[1], "%s: not square", what)
	k, m := c.wide[2], c.wide[3]
	demand(2*c.pad[0] == c.gap[0]*(k-1) && 2*c.pad[1] == c.gap[1]*(m-1), "%s: not centred", what)
	for o := 0; o < c.wide[0]; o++ {
		for i := 0; i < c.wide[1]; i++ {
			for y := 0; y < k; y++ {
				for x := 0; x < m; x++ {
					a := c.given.fraction(((o*c.wide[1]+i)*k+y)*m + x)
					z := c.given.fraction(((i*c.wide[1]+o)*k+k-1-y)*m + m - 1 - x)
					demand(new(big.Rat).Add(a, z).Sign() == 0, "%s: the kernel is not skew", what)
				}
			}
		}
	}
}

func (s *exponential) apply(x grid) grid {
	off := above(s.norm).times(x.off)
	term := grid{x.m, x.e, nothing()}
	total := term
	for k := 1; k < s.terms; k++ {
		term = divided(s.of.linear(term), k)
		total = together(total, term)
	}
	total.off = total.off.plus(off)
	return total
}

// divided is x / n.
func divided(x grid, n int) grid {
	const more = 12 // bits after the point: 2^50 and these stay below 2^63
	sums := make([]wide, len(x.m))
	inexact := 0
	for i, m := range x.m {
		sums[i] = widen(m << more / int64(n))
		if m<<more%int64(n) != 0 {
			inexact++
		}
	}
	y := settled(sums, x.e-more)
	y.off = y.off.plus(x.off.over(n)).plus(rounding(inexact, x.e-more+1))
	return y
}
