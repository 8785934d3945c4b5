package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// joinCgroups makes the cluster's cgroups and moves its first process there: `down` finds everything in them, and
// `status` reads what the cluster's own programs use.
func joinCgroups(s *Settings) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		top := filepath.Join(root, s.cgroup())
		if err := os.MkdirAll(filepath.Join(top, "system"), 0o755); err != nil {
			return fmt.Errorf("cannot make a cgroup: %w", err)
		}
		for _, folder := range []string{root, top} {
			// Unified hierarchy: children get only what their parent passes on. A controller that is missing is none to pass.
			for _, controller := range []string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb"} {
				_ = os.WriteFile(filepath.Join(folder, "cgroup.subtree_control"), []byte("+"+controller), 0)
			}
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			// Version 1 refuses processes in a set without processors.
			if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
				continue
			}
			value, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				continue
			}
			for _, folder := range []string{top, filepath.Join(top, "system")} {
				_ = os.WriteFile(filepath.Join(folder, name), value, 0)
			}
		}
		procs := filepath.Join(top, "system", "cgroup.procs")
		if err := os.WriteFile(procs, fmt.Appendf(nil, "%d", s.Pid), 0); err != nil {
			return fmt.Errorf("cannot join a cgroup: %w", err)
		}
	}
	return nil
}

// cgroupRoots are the mounted hierarchies, of either version.
func cgroupRoots() ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, line := range strings.Split(string(table), "\n") {
		before, after, found := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if found && len(fields) > 4 && strings.HasPrefix(after, "cgroup") && fields[3] == "/" {
			roots = append(roots, fields[4])
		}
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted")
	}
	return roots, nil
}
