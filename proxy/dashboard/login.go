package dashboard

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// viewer is who looks at the page.
type viewer struct {
	User  string `json:"user"` // empty: somebody on this machine, who may look
	Admin bool   `json:"admin"`
}

type viewerKey struct{}

// visit is a login. It lives for a while, in this process only.
type visit struct {
	viewer
	until time.Time
	mark  string // of the user's standing that the login was let in by
}

const (
	visitLife = 12 * time.Hour
	maxVisits = 1000
	cookie    = "pgmosaic"
)

// guard lets in who may look: with a cookie of a login, with a name and password in the header (for programs), or anybody
// where the page can be reached from this machine only.
func (s *Server) guard(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := s.identify(r)
		if !ok {
			if r.Header.Get("X-Requested-With") == "" { // a browser's own box would be in the page's way
				w.Header().Set("WWW-Authenticate", `Basic realm="pgmosaic"`)
			}
			http.Error(w, "log in as one of admin_users or stats_users", http.StatusUnauthorized)
			return
		}
		if v.User != "" {
			letIn(r)
		}
		h(w, r.WithContext(context.WithValue(r.Context(), viewerKey{}, v)))
	})
}

func viewerOf(r *http.Request) viewer {
	v, _ := r.Context().Value(viewerKey{}).(viewer)
	return v
}

func (s *Server) identify(r *http.Request) (viewer, bool) {
	if c, err := r.Cookie(cookie); err == nil {
		if v, ok := s.visitor(c.Value); ok {
			return v, true
		}
	}
	if user, password, ok := r.BasicAuth(); ok {
		isAdmin, _, err := s.Login(r.Context(), remote(r), user, password)
		return viewer{user, isAdmin}, err == nil
	}
	return viewer{}, s.Open
}

// visitor is who has logged in and was given a cookie, as long as that is good: the user may look still, and has the password that it had.
func (s *Server) visitor(token string) (viewer, bool) {
	s.mu.Lock()
	v, ok := s.visits[token]
	s.mu.Unlock()
	if !ok || !time.Now().Before(v.until) {
		return viewer{}, false
	}
	isAdmin, may, mark := s.Standing(v.User)
	return viewer{v.User, isAdmin}, may && mark == v.mark
}

// stillIn says whether who came by a cookie is logged in still.
func (s *Server) stillIn(r *http.Request) bool {
	c, err := r.Cookie(cookie)
	if err != nil || s.Open {
		return true
	}
	_, ok := s.visitor(c.Value)
	return ok
}

func remote(r *http.Request) netip.AddrPort {
	a, _ := netip.ParseAddrPort(r.RemoteAddr) // empty for none
	return a
}

// login takes a name and a password and gives a cookie, which no script can read and no other site can use.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ User, Password string }
	if !readJSON(w, r, &in) {
		return
	}
	isAdmin, mark, err := s.Login(r.Context(), remote(r), in.User, in.Password)
	if err != nil {
		writeJSON(w, http.StatusUnauthorized, map[string]string{"message": err.Error()})
		return
	}
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	token := base64.RawURLEncoding.EncodeToString(b)
	now := time.Now()
	v := visit{viewer{in.User, isAdmin}, now.Add(visitLife), mark}
	s.mu.Lock()
	for t, x := range s.visits {
		if len(s.visits) >= maxVisits || now.After(x.until) {
			delete(s.visits, t)
		}
	}
	s.visits[token] = v
	s.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil, MaxAge: int(visitLife.Seconds())})
	writeJSON(w, http.StatusOK, v.viewer)
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(cookie); err == nil {
		s.mu.Lock()
		delete(s.visits, c.Value)
		s.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1})
	w.WriteHeader(http.StatusNoContent)
}

// maxRequest bounds what a request may hold.
const maxRequest = 64 << 10

// readJSON reads a request's body. It must say that it is JSON: a form of another site cannot.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	if r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "application/json was expected", http.StatusUnsupportedMediaType)
		return false
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		http.Error(w, "another site may not ask for this", http.StatusForbidden)
		return false
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(into); err != nil {
		http.Error(w, "malformed JSON", http.StatusBadRequest)
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// local refuses, where anybody may look, requests for a name that is not this machine's: a page elsewhere can make its own
// name mean this machine, and would then read what is here (DNS rebinding).
func (s *Server) local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Open {
			host := r.Host
			if name, _, err := net.SplitHostPort(host); err == nil {
				host = name
			}
			if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
				http.Error(w, "use the address 127.0.0.1", http.StatusMisdirectedRequest)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// Loopback says whether an address can be reached from this machine only.
func Loopback(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if _, err := strconv.Atoi(port); err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
