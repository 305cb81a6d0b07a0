package files

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(t []byte) (err error) {
	*h, err = hex.DecodeString(string(t))
	return err
}

type goldenFile struct {
	Records []struct {
		Name   string
		Fields struct {
			Kind      Kind
			Flags     uint8
			Mode      uint16
			Dir       uint32
			Mtime     int64
			UID, GID  uint32
			Name      hexBytes `json:"name_hex"`
			Size      uint64
			Target    hexBytes `json:"target_hex"`
			TargetDir uint32   `json:"target_dir"`
			Data      hexBytes `json:"data_hex"`
		}
		Hex hexBytes
	}
	Invalid []struct {
		Name string
		Hex  hexBytes
	}
}

func golden(t testing.TB) (g goldenFile) {
	t.Helper()
	data, err := os.ReadFile("../../tests/golden/records.json")
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil || len(g.Records) == 0 || len(g.Invalid) == 0 {
		t.Fatal("the golden file is not whole", err)
	}
	return g
}

func TestGoldenRecords(t *testing.T) {
	for _, c := range golden(t).Records {
		f := c.Fields
		want := Record{f.Kind, f.Flags, f.Mode, f.Dir, f.Mtime, f.UID, f.GID, f.Name, f.Size, f.Target, f.TargetDir, f.Data}
		if got := Append([]byte("x"), want)[1:]; !bytes.Equal(got, c.Hex) {
			t.Errorf("%s: encoded %x", c.Name, got)
		}
		got, size, err := Decode(append(bytes.Clone(c.Hex), "rest"...))
		if err != nil || size != len(c.Hex) || !bytes.Equal(Append(nil, got), c.Hex) {
			t.Errorf("%s: decoded %+v, %d, %v", c.Name, got, size, err)
		}
	}
}

func TestGoldenInvalidRecords(t *testing.T) {
	for _, c := range golden(t).Invalid {
		if r, _, err := Decode(c.Hex); err == nil {
			t.Errorf("%s: taken for %+v", c.Name, r)
		}
	}
}

// FuzzDecode: no panic, and what is accepted encodes to the same bytes again.
func FuzzDecode(f *testing.F) {
	for _, c := range golden(f).Records {
		f.Add([]byte(c.Hex))
	}
	for _, c := range golden(f).Invalid {
		f.Add([]byte(c.Hex))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, size, err := Decode(data)
		if err == nil && !bytes.Equal(Append(nil, r), data[:size]) {
			t.Fatalf("%x became %x", data[:size], Append(nil, r))
		}
	})
}
