package files

import (
	"bytes"
	"hash/adler32"
	"testing"
)

func TestTheSumIsAdler32HoweverItIsCut(t *testing.T) {
	for _, fill := range []byte{0, 1, 0x7F, 0xFF} {
		content := bytes.Repeat([]byte{fill}, 3*block+5)
		for i := range content {
			content[i] ^= byte(i * i / 7 & int(fill))
		}
		for size := range len(content) + 1 {
			want := adler32.Checksum(content[:size])
			if got := addSum(addSum(sumStart, content[:size/3]), content[size/3:size]); got != want {
				t.Fatalf("%d bytes of %x: %08x, not %08x", size, fill, got, want)
			}
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("Wikipedia"), 3)
	f.Add(bytes.Repeat([]byte{0xFF}, 4*block), block)
	f.Fuzz(func(t *testing.T, content []byte, cut int) {
		cut = min(max(cut, 0), len(content))
		if got, want := addSum(addSum(sumStart, content[:cut]), content[cut:]), adler32.Checksum(content); got != want {
			t.Fatalf("%08x, not %08x", got, want)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	content := bytes.Repeat([]byte("abcdefg%"), 32<<10)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		addSum(sumStart, content)
	}
}
