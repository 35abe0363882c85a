package pool

import "testing"

func TestSettingsThatSayWhoTheSessionIs(t *testing.T) {
	set := func(pairs ...string) *Settings {
		s := NoSettings
		for i := 0; i < len(pairs); i += 2 {
			s = s.With(pairs[i], pairs[i+1])
		}
		return s
	}
	u8, u8u9 := set("session_authorization", "'u8'"), set("session_authorization", "'u8'", "role", "'u9'")
	if !u8.Same(set("role", "'u9'", "session_authorization", "'u8'")) {
		t.Error("SET SESSION AUTHORIZATION leaves a role")
	}
	if u8u9.Without("session_authorization") != NoSettings || set("role", "'u9'").Without("session_authorization") != NoSettings {
		t.Error("RESET SESSION AUTHORIZATION leaves a role")
	}
	for _, x := range []struct {
		have, want *Settings
		sql        string
	}{
		{NoSettings, NoSettings, ""},
		{u8u9, u8u9, ""},
		{NoSettings, u8u9, `SET "session_authorization" TO 'u8';SET "role" TO 'u9';`},
		{u8u9, NoSettings, `RESET session_authorization;RESET role;`},
		{set("role", "'u9'"), NoSettings, `RESET role;`},
		{set("a", "'1'", "b", "'2'"), set("b", "'3'", "c", "'4'"), `RESET "a";SET "b" TO '3';SET "c" TO '4';`},
		// What was set as another role may not be set as this one: back first, and who it is last.
		{u8u9.With("a", "'1'"), u8u9, `RESET session_authorization;RESET role;RESET "a";SET "session_authorization" TO 'u8';SET "role" TO 'u9';`},
		{u8, set("role", "'u9'", "work_mem", "'1'"), `RESET session_authorization;RESET role;SET "work_mem" TO '1';SET "role" TO 'u9';`},
	} {
		if got := diff(x.have, x.want); got != x.sql {
			t.Errorf("from %q to %q: %s", x.have.Names(), x.want.Names(), got)
		}
	}
	if all := u8u9.With("a", "'1'"); !all.Who().Same(u8u9) || !all.Others().Same(set("a", "'1'")) || !all.Others().Over(all.Who()).Same(all) {
		t.Error("the two parts of a set are not the set")
	}
}

func TestServerIsWhomItsBooksHave(t *testing.T) {
	s := &Server{role: "app", Params: map[string]string{"session_authorization": "app"}, settings: NoSettings}
	is := func(what string, want bool) {
		t.Helper()
		if s.Itself() != want {
			t.Errorf("%s: %v", what, s.Itself())
		}
	}
	is("fresh", true)
	s.NoteParam([]byte("session_authorization\x00it's\x00"))
	is("made another out of sight", false)
	s.SetSettings(NoSettings.With("session_authorization", "'it''s'"))
	is("by the client's SET", true)
	s.Doubt()
	is("of whom it is not known", false)
}
