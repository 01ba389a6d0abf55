from tests.web.rounds import Browser, invited, put_up, served, tell, text_of


def test_a_person_asks_expands_and_submits(tmp_path):
    folder = put_up(tmp_path)
    [member] = invited(folder)
    with served(folder) as client:
        browser = Browser(client, member)
        assert "Which river does the bridge at Arle cross?" in browser.open()
        browser.send("ask", text="Which river flows through Arle?")
        assert tell(folder) == 1
        assert "87 % sure" in browser.open()
        browser.send("expand")
        assert tell(folder) == 1
        assert "How this was answered" in browser.open()
        page = browser.send("submit", answer="the Tamble").text
        assert "Submitted." in page
        assert "Is Arle larger than Osk?" in text_of(page)
