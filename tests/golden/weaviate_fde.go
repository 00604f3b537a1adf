// FDEs by the rules of Weaviate's encoder, on Go's own generator and mathematics.
//
//	weaviate_fde K P R D < tokens > result
//
// Tokens are float32, little-endian, D to a row.  The result is float32 too: the hyperplanes (R, K, D), the
// signs (R, P, D), the document's FDE and the query's FDE.
package main

import (
	"encoding/binary"
	"io"
	"math"
	"math/bits"
	"math/rand/v2"
	"os"
	"strconv"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func dot(a, b []float32) (sum float32) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

func main() {
	var size [4]int
	for i := range size {
		value, err := strconv.Atoi(os.Args[1+i])
		must(err)
		size[i] = value
	}
	k, p, reps, d := size[0], size[1], size[2], size[3]
	raw, err := io.ReadAll(os.Stdin)
	must(err)
	tokens := make([][]float32, len(raw)/4/d)
	for i := range tokens {
		tokens[i] = make([]float32, d)
		for j := range tokens[i] {
			tokens[i][j] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*(i*d+j):]))
		}
	}

	// One stream: a repetition's hyperplanes, its signs, then the next repetition.
	stream := rand.New(rand.NewPCG(0x532ca5105169b1df, 0x385ab5285169b1ac))
	var normals, signs []float32
	for r := 0; r < reps; r++ {
		for i := 0; i < k*d; i++ {
			radius := math.Sqrt(-2.0 * math.Log(stream.Float64()))
			normals = append(normals, float32(radius*math.Cos(2*math.Pi*stream.Float64())))
		}
		for i := 0; i < p*d; i++ {
			signs = append(signs, float32(2*stream.IntN(2)-1))
		}
	}

	must(binary.Write(os.Stdout, binary.LittleEndian, normals))
	must(binary.Write(os.Stdout, binary.LittleEndian, signs))
	for _, isDocument := range []bool{true, false} {
		var fde []float32
		for r := 0; r < reps; r++ {
			fde = append(fde, encode(tokens, normals[r*k*d:], signs[r*p*d:], k, p, d, isDocument)...)
		}
		must(binary.Write(os.Stdout, binary.LittleEndian, fde))
	}
}

// One repetition's blocks.
func encode(tokens [][]float32, normals, signs []float32, k, p, d int, isDocument bool) []float32 {
	cellOf := make([]uint, len(tokens))
	sums := make([][]float32, 1<<k)
	counts := make([]float32, 1<<k)
	for c := range sums {
		sums[c] = make([]float32, d)
	}
	for t, token := range tokens {
		for i := 0; i < k; i++ {
			if dot(token, normals[i*d:(i+1)*d]) > 0 {
				cellOf[t] |= 1 << i
			}
		}
		counts[cellOf[t]]++
		for j, x := range token {
			sums[cellOf[t]][j] += x
		}
	}
	scale := 1 / float32(math.Sqrt(float64(p)))
	var blocks []float32
	for c, cell := range sums {
		if isDocument && counts[c] == 0 {
			nearest := 0
			for t := range tokens {
				if bits.OnesCount(uint(c)^cellOf[t]) < bits.OnesCount(uint(c)^cellOf[nearest]) {
					nearest = t
				}
			}
			cell = tokens[nearest]
		} else if isDocument {
			for j := range cell {
				cell[j] *= 1 / counts[c]
			}
		}
		for i := 0; i < p; i++ {
			blocks = append(blocks, dot(signs[i*d:(i+1)*d], cell)*scale)
		}
	}
	return blocks
}
