package job

import (
	"os"
	"strings"
	"syscall"

	"pyro.dev/agent/account"
)

// explain turns a failed fork or exec into what a shell would say.
func explain(err error, program string) startFailure {
	switch err {
	case syscall.ENOENT:
		return startFailure{code: codeNotFound, text: program + ": its interpreter was not found"}
	case syscall.EAGAIN:
		return startFailure{codeNotExecutable, "no more processes are allowed", []string{"process_limit"}}
	}
	return startFailure{code: codeNotExecutable, text: program + ": " + err.Error()}
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the usual one of a login with the machine's own variables, overridden by the request. The last value of
// a name counts.
func environment(spec Spec, who account.Account, machine []string) []string {
	home := who.Home
	if home == "" {
		home = "/"
	}
	env := []string{"PATH=" + defaultPath, "HOME=" + home, "USER=" + who.Name, "LOGNAME=" + who.Name}
	if who.Shell != "" {
		env = append(env, "SHELL="+who.Shell)
	}
	if spec.Terminal != nil && spec.Terminal.Term != "" {
		env = append(env, "TERM="+spec.Terminal.Term)
	}
	env = append(env, machine...)
	at := make(map[string]int, len(env)+len(spec.Env))
	for i, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		at[name] = i
	}
	for _, entry := range spec.Env {
		name, _, _ := strings.Cut(entry, "=")
		if i, ok := at[name]; ok {
			env[i] = entry
			continue
		}
		at[name] = len(env)
		env = append(env, entry)
	}
	return env
}

// find looks a program up as a shell does.
func find(name string, env []string, cwd string) (string, startFailure) {
	if strings.Contains(name, "/") {
		return check(name, under(cwd, name))
	}
	denied := startFailure{}
	for _, entry := range env {
		path, ok := strings.CutPrefix(entry, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(path, ":") {
			program, failure := check(name, under(cwd, dir)+"/"+name)
			if failure.code == 0 {
				return program, failure
			}
			if failure.code == codeNotExecutable {
				denied = failure
			}
		}
	}
	if denied.code != 0 {
		return "", denied
	}
	return "", startFailure{code: codeNotFound, text: name + ": not found"}
}

func check(name, path string) (string, startFailure) {
	info, err := os.Stat(path)
	switch {
	case os.IsPermission(err):
		return "", startFailure{code: codeNotExecutable, text: name + ": permission denied"}
	case err != nil:
		return "", startFailure{code: codeNotFound, text: name + ": not found"}
	case info.IsDir():
		return "", startFailure{code: codeNotExecutable, text: name + ": is a directory"}
	case info.Mode()&0o111 == 0:
		return "", startFailure{code: codeNotExecutable, text: name + ": permission denied"}
	}
	return path, startFailure{}
}

func under(dir, path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return dir + "/" + path
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
