import pytest

from outrider.core.ids import NetworkId
from outrider.sbi import headers


def test_an_idempotency_key_passes_whatever_it_is_made_of():
    for key in ("abc-1", "a b;c=d", 'q"uo\\te'):
        name, value = headers.with_idempotency_key(key)
        assert name == "3gpp-sbi-request-info"
        assert headers.idempotency_key(value) == key


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, None),
        ("retrans=true", None),
        ("retrans=true; idempotency-key=k1; redirect=false", "k1"),
        ('Idempotency-Key="k 2";reason=x', "k 2"),
        ("idempotency-key=", None),
    ],
)
def test_an_idempotency_key_is_found_among_other_parameters(value, key):
    assert headers.idempotency_key(value) == key


@pytest.mark.parametrize("value", ["idempotency-key", 'idempotency-key="open', "=x; idempotency-key=1"])
def test_a_malformed_parameter_list_is_an_error(value):
    with pytest.raises(ValueError, match="name=value"):
        headers.idempotency_key(value)


def test_parameters_pass_both_ways():
    parameters = {"nfinst": "8f2d", "servname": "a b"}
    assert headers.format_parameters(parameters) == 'nfinst=8f2d; servname="a b"'
    assert headers.parse_parameters(headers.format_parameters(parameters)) == parameters


@pytest.mark.parametrize(
    ("value", "limit_ms"),
    [(None, None), ("0", 0), ("5000", 5000), ("123456", None), ("-1", None), ("1.5", None), ("٣", None)],
)
def test_a_response_time_is_one_to_five_digits(value, limit_ms):
    assert headers.max_rsp_time_ms(value) == limit_ms


def test_a_response_time_is_written_within_five_digits():
    assert headers.with_max_rsp_time(1500) == ("3gpp-sbi-max-rsp-time", "1500")
    assert headers.with_max_rsp_time(-5)[1] == "0"
    assert headers.with_max_rsp_time(10**9)[1] == "99999"


def test_an_originating_network_passes_both_ways():
    for network in (NetworkId("999", "70"), NetworkId("999", "071", "0123456789a")):
        assert headers.originating_network(headers.with_originating_network(network)[1]) == network
    assert headers.originating_network("999-70; src: sepp.example.org") == NetworkId("999", "70")
    assert headers.originating_network(None) is None
    with pytest.raises(ValueError, match="not a network"):
        headers.originating_network("somewhere")


def test_a_target_root_has_no_trailing_slash_and_no_query():
    assert (
        headers.target_api_root("https://5gc.mnc070.mcc999.3gppnetwork.org/")
        == "https://5gc.mnc070.mcc999.3gppnetwork.org"
    )
    assert headers.target_api_root("http://[::1]:80/prefix") == "http://[::1]:80/prefix"
    for bad in ("", "ftp://x", "http://", "//x", "http://a b", "http://x?y", "http://u@x"):
        with pytest.raises(ValueError, match="apiRoot"):
            headers.target_api_root(bad)


def test_a_callback_names_its_kind():
    name, value = headers.with_callback("Nnrf_NFManagement_NFStatusNotify")
    assert (name, value) == ("3gpp-sbi-callback", "Nnrf_NFManagement_NFStatusNotify; apiversion=1")
    assert headers.callback_kind(value) == "Nnrf_NFManagement_NFStatusNotify"


def test_the_producer_is_read_back():
    assert headers.producer_id(headers.with_producer_id("8f2d")[1]) == "8f2d"
    assert headers.producer_id(None) is None
    assert headers.producer_id("nfset=x") is None


def test_response_info_is_written_with_hyphens():
    assert headers.with_response_info(context_transferred="true", no_retry="true") == (
        "3gpp-sbi-response-info",
        "context-transferred=true; no-retry=true",
    )
