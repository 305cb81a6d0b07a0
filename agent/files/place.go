package files

import (
	"os"
	"strings"
)

// openRoot opens the workspace, made if it is not there. A symbolic link in its place is not followed.
func openRoot(root string) (int, error) {
	if err := os.Mkdir(root, 0o755); err == nil {
		os.Chmod(root, 0o755)
	}
	fd, err := openAt(noFD, root, openDir, 0) // an absolute path: the directory does not matter
	return fd, failed("opening", root, err)
}

// split gives the names on a path below the workspace; the empty path is the workspace.
func split(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	parts := strings.Split(path, "/")
	for _, part := range parts {
		if !validName([]byte(part)) {
			return nil, fail("bad_path", "not a path below the workspace: "+path)
		}
	}
	return parts, nil
}

// openBelow opens a directory below an open one, name by name, so that no symbolic link on the way is followed.
func openBelow(root int, parts []string) (int, error) {
	fd, err := openAt(root, ".", openPlain, 0)
	for _, part := range parts {
		if err != nil {
			break
		}
		var next int
		next, err = openAt(fd, part, openDir, 0)
		closeFD(fd)
		fd = next
	}
	return fd, err
}

// openEntry opens the directory that holds the last name of a path, and gives that name ("" for the workspace itself).
func openEntry(root int, path string) (dir int, name string, err error) {
	parts, err := split(path)
	if err != nil {
		return noFD, "", err
	}
	if len(parts) > 0 {
		parts, name = parts[:len(parts)-1], parts[len(parts)-1]
	}
	dir, err = openBelow(root, parts)
	return dir, name, failed("opening", path, err)
}
