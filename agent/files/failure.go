package files

import (
	"errors"
	"syscall"
)

// Failure is an error with a code of the protocol.
type Failure struct {
	Code    string
	Message string
}

func (f *Failure) Error() string { return f.Message }

func fail(code, message string) error { return &Failure{code, message} }

// failed says what went wrong with path; an errno that a user can do something about has a code of its own.
func failed(doing, path string, err error) error {
	var known *Failure
	if err == nil || errors.As(err, &known) {
		return err
	}
	code := "internal"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = "no_space"
	case errors.Is(err, syscall.ENOENT):
		code = "no_such_path"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG):
		code = "bad_path"
	case errors.Is(err, syscall.EEXIST), errors.Is(err, ErrRecord):
		code = "bad_request"
	}
	if path == "" {
		return fail(code, doing+": "+err.Error())
	}
	return fail(code, doing+" "+path+": "+err.Error())
}
