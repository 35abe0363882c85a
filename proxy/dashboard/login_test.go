package dashboard

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// A login is over when its user may look no more, or has another password; what it may do is what it may do now.
func TestALoginEndsWithItsStanding(t *testing.T) {
	isAdmin, may, mark := true, true, "0"
	s := &Server{
		Login: func(context.Context, netip.AddrPort, string, string) (bool, string, error) {
			let := mark // the password is another one when the login has been judged
			mark = "1"
			return isAdmin, let, nil
		},
		Standing: func(string) (bool, bool, string) { return isAdmin, may, mark },
		visits:   map[string]visit{},
	}
	r := httptest.NewRequest(http.MethodPost, "/api/login", strings.NewReader(`{"user": "boss", "password": "x"}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.login(w, r)
	cookies := w.Result().Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies", len(cookies))
	}
	look := func() (viewer, bool) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.AddCookie(cookies[0])
		in := s.stillIn(r)
		v, ok := s.identify(r)
		if in != ok {
			t.Errorf("still in: %v, identified: %v", in, ok)
		}
		return v, ok
	}
	if v, ok := look(); ok {
		t.Errorf("let in by the password of before: %+v", v)
	}
	mark = "0"
	if v, ok := look(); !ok || !v.Admin || v.User != "boss" {
		t.Errorf("logged in: %+v, %v", v, ok)
	}
	isAdmin = false
	if v, ok := look(); !ok || v.Admin {
		t.Errorf("no admin any more: %+v, %v", v, ok)
	}
	mark = "2"
	if v, ok := look(); ok {
		t.Errorf("with another password: %+v", v)
	}
	mark, may = "1", false
	if v, ok := look(); ok {
		t.Errorf("who may not look: %+v", v)
	}
}
