package trust

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	images = begin + "\nimage\n-----END CERTIFICATE-----"
	own    = begin + "\nown\n-----END CERTIFICATE-----\n"
)

// tree is a root directory with files of the given content.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), directoryMode); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), fileMode); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func content(t *testing.T, root, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAuthoritiesAreAddedOnceToWhatTheImageTrusts(t *testing.T) {
	root := tree(t, map[string]string{bundle: images, others[0]: "", openSSL + "/openssl.cnf": ""})
	for range 2 {
		if err := Install(root, own); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{file: own, bundle: images + "\n" + own, others[0]: own} {
		if got := content(t, root, name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if target, _ := os.Readlink(filepath.Join(root, openSSL, "cert.pem")); target != bundle {
		t.Errorf("OpenSSL reads %q", target)
	}
	if _, err := os.Stat(filepath.Join(root, others[1])); err == nil {
		t.Error("a bundle was made that the image does not have")
	}
}

func TestAnImageWithoutCertificatesGetsABundle(t *testing.T) {
	root := t.TempDir()
	if got := Variables(root); got != nil {
		t.Fatalf("variables %q without authorities", got)
	}
	if err := Install(root, own); err != nil {
		t.Fatal(err)
	}
	if got := content(t, root, bundle); got != own {
		t.Errorf("the bundle is %q", got)
	}
	want := []string{"SSL_CERT_FILE=" + bundle, "REQUESTS_CA_BUNDLE=" + bundle, "NODE_EXTRA_CA_CERTS=" + bundle}
	if got := Variables(root); !slices.Equal(got, want) {
		t.Errorf("variables %q", got)
	}
}

func TestOnlyCertificatesAreTaken(t *testing.T) {
	for _, good := range []string{"", own, own + own} {
		if err := Check(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	key := "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"
	for _, bad := range []string{"x\n", key, strings.TrimSpace(own), own + strings.Repeat("\n", MaxSize)} {
		if Check(bad) == nil {
			t.Errorf("%.60q was taken", bad)
		}
	}
}
