// Package trust makes a guest believe certificate authorities besides those of its image.
package trust

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

const (
	// MaxSize is what the authorities of a machine may take, in bytes.
	MaxSize = 64 << 10

	begin  = "-----BEGIN CERTIFICATE-----"
	file   = "/usr/local/share/ca-certificates/pyro.crt" // where update-ca-certificates(8) looks
	bundle = "/etc/ssl/certs/ca-certificates.crt"
	// OpenSSL's own bundle is this one; Debian leaves it out and has a directory that is sorted by hashes in its place.
	openSSL = "/usr/lib/ssl"

	fileMode      = 0o644
	directoryMode = 0o755
)

// Bundles of other distributions, where they are there.
var others = []string{"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/ca-bundle.pem"}

// Programs that bring certificates of their own read these variables.
var variables = []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}

// Check says what is wrong with authorities, which are a text of PEM certificates; none is right.
func Check(authorities string) error {
	if authorities == "" {
		return nil
	}
	if len(authorities) > MaxSize || !strings.HasPrefix(authorities, begin) || !strings.HasSuffix(authorities, "\n") {
		return errors.New("authorities are no certificates, or too many")
	}
	return nil
}

// Install puts authorities beside those that the image below root trusts. It may be said again.
func Install(root, authorities string) error {
	own := filepath.Join(root, file)
	if err := os.MkdirAll(filepath.Dir(own), directoryMode); err != nil {
		return err
	}
	if err := os.WriteFile(own, []byte(authorities), fileMode); err != nil {
		return err
	}
	main := filepath.Join(root, bundle)
	if err := os.MkdirAll(filepath.Dir(main), directoryMode); err != nil {
		return err
	}
	if err := add(main, authorities, os.O_CREATE); err != nil {
		return err
	}
	for _, other := range others {
		if err := add(filepath.Join(root, other), authorities, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(root, openSSL)); err == nil {
		_ = os.Symlink(bundle, filepath.Join(root, openSSL, "cert.pem")) // the image may have one already
	}
	return nil
}

// add appends authorities to a bundle that does not have them.
func add(path, authorities string, create int) error {
	known, err := os.ReadFile(path)
	if err != nil && (create == 0 || !errors.Is(err, os.ErrNotExist)) {
		return err
	}
	if bytes.Contains(known, []byte(authorities)) {
		return nil
	}
	if len(known) > 0 && known[len(known)-1] != '\n' {
		authorities = "\n" + authorities
	}
	target, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|create, fileMode)
	if err != nil {
		return err
	}
	_, err = target.WriteString(authorities)
	return errors.Join(err, target.Close())
}

// Variables is what the environment of every command has in the machine below root: nothing where none were installed.
func Variables(root string) []string {
	if _, err := os.Stat(filepath.Join(root, file)); err != nil {
		return nil
	}
	set := make([]string, 0, len(variables))
	for _, name := range variables {
		set = append(set, name+"="+bundle)
	}
	return set
}
