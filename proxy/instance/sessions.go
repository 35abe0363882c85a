package instance

import (
	"fmt"
	"sort"

	"github.com/pgmosaic/pgmosaic/proxy/admin"
	"github.com/pgmosaic/pgmosaic/proxy/exec"
	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
	"github.com/pgmosaic/pgmosaic/proxy/session"
)

// signal does for a client what pg_terminate_backend and pg_cancel_backend do for a server process. A role may
// do it to its own sessions.
func (in *Instance) signal(pid uint32, database, role string, terminate bool) bool {
	s := in.Server.SessionOf(pid)
	if s == nil {
		return false
	}
	i := s.Info()
	if i.Login.User != role || i.Login.Database != database {
		return false
	}
	if terminate {
		s.Terminate(&pgsql.Error{Code: pgsql.AdminShutdown, Message: "terminating connection due to administrator command"})
	} else if i.Handler != nil {
		i.Handler.Cancel()
	}
	return true
}

// Clients are the sessions, as SHOW CLIENTS has them. Any goroutine may call it.
func (in *Instance) Clients() []admin.Client {
	var out []admin.Client
	for _, s := range in.Server.Sessions() {
		out = append(out, in.client(s))
	}
	return out
}

// Using describes the clients of a database that run by a map older than a version.
func (in *Instance) Using(database string, before uint64) (out []string) {
	for _, s := range in.Server.Sessions() {
		i := s.Info()
		if h, ok := i.Handler.(*exec.Handler); ok && i.Login.Database == database {
			if v := h.Using(); v != 0 && v < before {
				out = append(out, describe(in.client(s)))
			}
		}
	}
	return out
}

// describe says who a client is and what it does.
func describe(c admin.Client) string {
	doing := "in a transaction"
	if c.State == "busy" {
		doing = "runs a statement"
	}
	from := c.Addr
	if c.Port != 0 {
		from = fmt.Sprintf("%s:%d", c.Addr, c.Port)
	}
	return fmt.Sprintf("client %d (%s from %s, %s)", c.ID, c.User, from, doing)
}

// client is a session as the console shows it.
func (in *Instance) client(s *session.Session) admin.Client {
	i := s.Info()
	c := admin.Client{
		ID: i.PID, User: i.Login.User, Database: i.Login.Database, State: i.State.String(), Connected: i.Connected, Request: i.Request, TLS: i.TLS,
		Application: i.Application, In: i.In, Out: i.Out, Tx: string(i.Tx), Addr: "unix", LocalAddr: "unix",
		Kill: func() {
			s.Terminate(&pgsql.Error{Code: pgsql.AdminShutdown, Message: "admin forced disconnect: terminating connection due to administrator command"})
		},
	}
	if i.Login.Remote.IsValid() {
		c.Addr, c.Port = i.Login.Remote.Addr().Unmap().String(), int(i.Login.Remote.Port())
		c.LocalAddr, c.LocalPort = i.Login.Local.Addr().Unmap().String(), int(i.Login.Local.Port())
	}
	if h, ok := i.Handler.(*exec.Handler); ok {
		c.Pin, c.PinSince = h.Pinned()
		c.Servers, c.Link, c.Waiting, c.Prepared = h.Servers(), h.Link(), h.Waiting(), h.PreparedCount()
	}
	return c
}

// users are the rows of SHOW USERS, by name.
func (in *Instance) users() []admin.User {
	acc := in.Gate.Access()
	clients := map[string]int{}
	for _, s := range in.Server.Sessions() {
		clients[s.Info().Login.User]++
	}
	names := map[string]bool{}
	for _, n := range acc.Users() {
		names[n] = true
	}
	for _, p := range in.Pools.All() {
		names[p.Role] = true
	}
	var out []admin.User
	for n := range names {
		out = append(out, admin.User{Name: n, Role: acc.Kind(n), Clients: clients[n]})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}
