package main

import (
	"math"
	"math/big"
	"math/rand"
	"strings"
	"testing"
)

var names = []string{"softplus", "tanh", "sigmoid", "elu", "silu", "gelu", "gelu-tanh", "mish", "softsign"}

// seeded gives a test random numbers of its own, and the others what they had.
func seeded() func() {
	before := source
	source = rand.New(rand.NewSource(1))
	return func() { source = before }
}

const fine = 400 // of what the functions are compared with

func long(x float64) *big.Float { return new(big.Float).SetPrec(fine).SetFloat64(x) }
func add(a, b *big.Float) *big.Float {
	return long(0).Add(a, b)
}
func div(a, b *big.Float) *big.Float { return long(0).Quo(a, b) }
func mul(a, b *big.Float) *big.Float { return long(0).Mul(a, b) }
func neg(a *big.Float) *big.Float    { return long(0).Neg(a) }

// exponential3 is e^x by a series of powers and by squares: another way than the checker's.
func exponential3(x *big.Float) *big.Float {
	const halvings = 40
	small := long(0).SetMantExp(x, -halvings)
	sum, term := long(1), long(1)
	for j := 1; j < 40; j++ {
		term = div(mul(term, small), long(float64(j)))
		sum = add(sum, term)
	}
	for j := 0; j < halvings; j++ {
		sum = mul(sum, sum)
	}
	return sum
}

// less1 is e^x - 1.
func less1(x *big.Float) *big.Float {
	if x.MantExp(nil) > -60 {
		return add(exponential3(x), long(-1))
	}
	sum, term := long(0), long(1)
	for j := 1; j < 12; j++ {
		term = div(mul(term, x), long(float64(j)))
		sum = add(sum, term)
	}
	return sum
}

// logarithm3 is log(1 + w), w in (0, 1]: by Newton's method on e^x, or as a series.
func logarithm3(w *big.Float) *big.Float {
	if w.MantExp(nil) < -40 {
		sum, term := long(0), long(-1)
		for j := 1; j < 12; j++ {
			term = neg(mul(term, w))
			sum = add(sum, div(term, long(float64(j))))
		}
		return sum
	}
	f, _ := w.Float64()
	x := long(math.Log1p(f))
	for step := 0; step < 6; step++ {
		x = add(x, add(mul(add(long(1), w), exponential3(neg(x))), long(-1)))
	}
	return x
}

var reference = map[string]func(x *big.Float) *big.Float{
	"softplus": func(x *big.Float) *big.Float {
		l := logarithm3(exponential3(neg(long(0).Abs(x))))
		if x.Sign() > 0 {
			return add(x, l)
		}
		return l
	},
	"tanh": func(x *big.Float) *big.Float {
		q := less1(add(x, x))
		return div(q, add(q, long(2)))
	},
	"sigmoid": func(x *big.Float) *big.Float { return div(long(1), add(long(1), exponential3(neg(x)))) },
	"elu": func(x *big.Float) *big.Float {
		if x.Sign() > 0 {
			return x
		}
		return less1(x)
	},
	"silu": func(x *big.Float) *big.Float { return div(x, add(long(1), exponential3(neg(x)))) },
	"gelu": func(x *big.Float) *big.Float {
		t := long(0).Abs(x)
		y := neg(mul(t, upperTail(t)))
		if x.Sign() > 0 {
			return add(x, y)
		}
		return y
	},
	"gelu-tanh": func(x *big.Float) *big.Float {
		cube := mul(x, mul(x, x))
		u := add(x, div(mul(long(44715), cube), long(1e6)))
		y := mul(long(0).Sqrt(div(long(8), pi3)), u)
		return div(x, add(long(1), exponential3(neg(y))))
	},
	"mish": func(x *big.Float) *big.Float {
		q := exponential3(x) // less 1 of the square of 1 + q, over more
		n := mul(q, add(q, long(2)))
		return div(mul(x, n), add(n, long(2)))
	},
	"softsign": func(x *big.Float) *big.Float { return div(x, add(long(1), long(0).Abs(x))) },
}

// pi3 is pi, by Gauss's formula: another one than the checker's.
var pi3 = func() *big.Float {
	inverse := func(n float64) *big.Float {
		sum, power := long(0), div(long(1), long(n))
		for k := 1.0; k < 200; k += 2 {
			sum = add(sum, div(power, long(k)))
			power = div(neg(power), long(n*n))
		}
		return sum
	}
	sum := add(mul(long(12), inverse(18)), add(mul(long(8), inverse(57)), mul(long(-5), inverse(239))))
	return mul(long(4), sum)
}()

// upperTail is Phi(-t): by a series of positive numbers that is taken from 1/2, or by convergents from the front.
func upperTail(t *big.Float) *big.Float {
	height := div(exponential3(div(mul(t, t), long(-2))), long(0).Sqrt(mul(long(2), pi3)))
	if t.Cmp(long(12)) < 0 {
		sum, term := long(0), t
		for k := 3.0; term.Sign() > 0 && term.MantExp(nil) > -fine; k += 2 {
			sum = add(sum, term)
			term = div(mul(term, mul(t, t)), long(k))
		}
		return add(long(0.5), neg(mul(height, sum)))
	}
	a, b, c, d := long(1), t, long(0), long(1) // b / d is t, t + 1 / t, t + 1 / (t + 2 / t), ...
	for k := 1.0; k < 500; k++ {
		a, b = b, add(mul(t, b), mul(long(k), a))
		c, d = d, add(mul(t, d), mul(long(k), c))
	}
	return div(mul(height, d), b)
}

var derivatives = map[string]func(x *big.Float) *big.Float{
	"softplus": func(x *big.Float) *big.Float { return reference["sigmoid"](x) },
	"tanh": func(x *big.Float) *big.Float {
		q := exponential3(add(x, x))
		p := add(q, long(1))
		return div(mul(long(4), q), mul(p, p))
	},
	"sigmoid": func(x *big.Float) *big.Float {
		q := exponential3(x)
		p := add(q, long(1))
		return div(q, mul(p, p))
	},
}

// rational is 0 for what is far below all that grids tell.
func rational(x *big.Float) *big.Rat {
	if x.MantExp(nil) < -4000 {
		return new(big.Rat)
	}
	r, _ := x.Rat(nil)
	return r
}

// near is a random number with up to 50 bits, of which e^x is about as short as the reference.
func near() (int64, int) {
	m := integral(precise)
	for m == 0 {
		m = integral(precise)
	}
	if source.Intn(3) == 0 {
		return m, -precise + source.Intn(8)
	}
	return m, -precise + 7 - source.Intn(90)
}

func TestFunctionsAreInTheirSpans(t *testing.T) {
	defer seeded()()
	for _, name := range names {
		c := curves[name]
		worst := 0.0
		for n := 0; n < 600; n++ {
			m, e := near()
			x := long(0).SetMantExp(long(float64(m)), e)
			p := point{m < 0, uint64(magnitude(m)), e}
			for kind, f := range map[string]func(point) span{"value": c.value, "slope": c.slope} {
				exact := reference[name]
				if kind == "slope" {
					exact = derivatives[name]
				}
				if f == nil {
					continue
				}
				y := exact(x)
				if kind == "value" && c.kept && x.Sign() > 0 {
					y = add(y, neg(x))
					if name == "gelu" {
						y = exact(neg(x)) // the same, of which nothing cancels
					}
				}
				s := f(p)
				if s.negative {
					y = neg(y)
				}
				low, high := times2(new(big.Rat).SetInt(bigs(int64(s.low))), s.e), times2(new(big.Rat).SetInt(bigs(int64(s.high))), s.e)
				room := multiply(high, power(-fine/2)) // of the reference
				v := rational(y)
				if new(big.Rat).Add(v, room).Cmp(low) < 0 || new(big.Rat).Sub(v, room).Cmp(high) > 0 {
					t.Fatal(name, kind, m, e, y.Text('g', 30), s)
				}
				if s.low > 0 {
					worst = math.Max(worst, float64(s.high-s.low)/float64(s.high))
				} else if faded := strings.HasPrefix(name, "gelu") && long(0).Abs(x).Cmp(long(14)) > 0; s.high != 0 && !faded {
					t.Fatal(name, kind, m, e, "is not known to be above 0")
				}
			}
		}
		if worst > 0x1p-56 {
			t.Error(name, "is off by", math.Log2(worst))
		}
	}
}

func TestLogarithmOfTwo(t *testing.T) {
	defer seeded()()
	l := logarithm3(long(1)).SetMantExp(logarithm3(long(1)), finest)
	low, high := long(0).SetInt(logTwoLow.big()), long(0).SetInt(logTwoHigh.big())
	if low.Cmp(l) > 0 || high.Cmp(l) < 0 || add(high, neg(low)).Cmp(long(2)) > 0 {
		t.Error(low, l, high)
	}
}

// The numbers around multiples of log 2, where one more or less of it is taken off.
func TestDecayAroundMultiplesOfLogTwo(t *testing.T) {
	defer seeded()()
	for k := 1; k < 2900; k += 1 + k/7 {
		m, _ := logTwoLow.repeated(uint64(k)).down(finest - 49)
		for d := -2; d <= 2; d++ { // some of them nearer than floats tell
			p := point{true, m.lo + uint64(d), -49}
			s := logistic(p)
			exact := rational(reference["sigmoid"](long(0).SetMantExp(long(0).SetInt64(-int64(p.m)), p.e)))
			low, high := times2(whole(int64(s.low)), s.e), times2(whole(int64(s.high)), s.e)
			if exact.Cmp(low) < 0 || exact.Cmp(high) > 0 || s.high-s.low > 64 {
				t.Fatal(k, d, s)
			}
		}
	}
}

func TestFarAway(t *testing.T) {
	defer seeded()()
	if s := swish(point{true, 1, 12}); s.low != 0 || s.high == 0 {
		t.Error("it is a little below 0")
	}
	for _, e := range []int{11 - precise, 12 - precise, 100, 1000, 100000} {
		m := int64(lift - 1)
		x := grid{[]int64{m, -m}, e, nothing()}
		inverse := new(big.Rat).Inv(new(big.Rat).Add(whole(1), times2(whole(m), e)))
		ends := map[string]*big.Rat{"tanh": whole(1), "sigmoid": whole(1), "softsign": inverse.Sub(whole(1), inverse)}
		far := map[string]*big.Rat{"elu": whole(-1), "tanh": whole(-1), "softsign": new(big.Rat).Neg(inverse)}
		for _, name := range names {
			c := curves[name]
			y := c.applied(x)
			high, low := ends[name], far[name]
			if high == nil {
				high = times2(whole(m), e)
			}
			if low == nil {
				low = whole(0)
			}
			covers(t, y, []*big.Rat{high, low}, name)
			if y.off.fraction().Cmp(multiply(high, power(-45))) > 0 {
				t.Error(name, e, y.off.f)
			}
			if c.slope != nil && e > farthest-precise { // nearer, it is known how small they are
				z := c.slopes(x)
				limit := whole(0)
				if name == "softplus" {
					limit = whole(1)
				}
				covers(t, z, []*big.Rat{limit, whole(0)}, name)
			}
		}
	}
}

func TestSmoothFunctionsOnGrids(t *testing.T) {
	defer seeded()()
	for _, name := range names {
		c := curves[name]
		for n := 0; n < 60; n++ {
			size := 1 + source.Intn(20)
			x := grid{make([]int64, size), 3 - precise - source.Intn(70), nothing()}
			if n%9 == 0 {
				x.e = 8 - precise
			}
			moved, values, slopes := make([]*big.Rat, size), make([]*big.Rat, size), make([]*big.Rat, size)
			shift := new(big.Rat)
			for i := range x.m {
				x.m[i] = integral(precise)
				// The exact numbers are somewhat off; the grid says so.
				d := big.NewRat(int64(source.Intn(2001)-1000), 1000000)
				shift.Add(shift, multiply(d, d))
				moved[i] = new(big.Rat).Add(times2(whole(x.m[i]), x.e), d)
				f := long(0).SetRat(moved[i])
				values[i] = rational(reference[name](f))
				if c.slope != nil {
					slopes[i] = rational(derivatives[name](f))
				}
			}
			square := floor(times2(shift, 120))
			x.off = rootOf(square.Add(square, bigs(1))).scaled(-60)
			covers(t, c.applied(x), values, name)
			if c.slope != nil {
				covers(t, c.slopes(x), slopes, name)
			}
		}
		// What rounding adds is small beside the largest number.
		x := grid{[]int64{lift, -lift, 1, 0, -1, lift / 3}, 2 - precise, nothing()}
		y := c.applied(x)
		size := rational(reference[name](long(4)))
		if y.off.fraction().Cmp(multiply(size, power(-45))) > 0 {
			t.Error(name, y.off.f)
		}
	}
}

func TestConstantsOfSmoothFunctions(t *testing.T) {
	defer seeded()()
	for _, name := range names {
		c := curves[name]
		low, high, bend, sag := 1.0, 0.0, 0.0, 0.0
		const h = 1e-4
		f := func(x float64) float64 { y, _ := reference[name](long(x)).Float64(); return y }
		for x := -8.002; x < 8; x += 0.046 {
			d := (f(x+h) - f(x-h)) / (2 * h)
			low, high = math.Min(low, d), math.Max(high, d)
			if c.slope != nil {
				b := (f(x+h) - 2*f(x) + f(x-h)) / (h * h)
				bend, sag = math.Max(bend, b), math.Min(sag, b)
			}
		}
		l, _ := c.low.Float64()
		u, _ := c.high.Float64()
		if low < l-1e-9 || high > u+1e-9 || low > l+0.02 || high < u-0.02 {
			t.Error(name, low, high)
		}
		if c.slope == nil {
			continue
		}
		b, _ := c.bend.Float64()
		if bend > b || bend < b*0.98 || !c.flat && (sag < -b || sag > -b*0.98) || c.flat && sag < -1e-7 {
			t.Error(name, bend, sag)
		}
	}
}

func TestSmoothFunctionsHaveNoFields(t *testing.T) {
	defer seeded()()
	b := &bundle{}
	for name := range curves {
		if !refused(func() { b.readActivation(record{"kind": name, "slopes": "w"}, []int{2}, "it") }) {
			t.Error(name)
		}
		a := b.readActivation(record{"kind": name}, []int{2, 3}, "it")
		if tuple(a.outputs) != "(2, 3)" || a.square.Cmp(multiply(a.constant.fraction(), a.constant.fraction())) > 0 || a.slope != nil {
			t.Error(name)
		}
	}
}
